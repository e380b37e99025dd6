"""What documents say can be done: every file, target and option exists."""

import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from repository_files import ROOT, name_of, repository_files

from s3router.brains.hparams import flatten_hparams
from s3router.errors import SettingError

DOCUMENTS = repository_files(".md")
FENCE = re.compile(
    r"^ *```(?:sh|bash|console)\n(?P<body>.*?)^ *```", re.M | re.S
)
PYTHON = re.compile(r"^```python\n(?P<body>.*?)^```", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
TOP_LEVEL = (
    "s3router/ hparams/ recipes/ tests/ export/ benchmarks/ docs/ .ci/"
).split()
COMMANDS = {"python", "make", "s3router", "torchrun"}
PLACEHOLDERS = {"..."}
# The installed command, without the need of an install.
S3ROUTER = ("-c", "from s3router.cli import main; raise SystemExit(main())")


def shell_lines(text):
    """Yield the commands of a document, continued lines joined."""
    for block in FENCE.finditer(text):
        body = block["body"].replace("\\\n", " ")
        yield from (line.strip() for line in body.splitlines())
    for found in INLINE.finditer(FENCE.sub("", text)):
        yield found[1]


def commands(path):
    """Yield the commands of a document that are ours to keep true."""
    for line in shell_lines(path.read_text(encoding="utf-8")):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # prose in backticks
        if len(words) > 1 and words[0] in COMMANDS:
            yield words


@cache
def make_targets():
    """Return the Makefile's targets."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", text, re.M))


@cache
def help_of(*words):
    """Return the help text of a command."""
    done = subprocess.run(
        [sys.executable, *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def options_of(words):
    """Return the long options among words, without their values."""
    return [w.split("=")[0] for w in words if re.match(r"--[a-z]", w)]


def faults_of_recipe(script, words):
    """Return what is wrong with the arguments of a recipe's script."""
    import speechbrain as sb

    if not words or not words[0].endswith(".yaml"):
        return []  # the script alone is named, as with `...`
    if not (ROOT / words[0]).is_file():
        return [f"no file {words[0]}"]
    given = [w for w in words[1:] if w not in PLACEHOLDERS]
    _, _, overrides = sb.parse_arguments([str(ROOT / words[0]), *given])
    try:
        flatten_hparams(ROOT / words[0], overrides)
    except SettingError as error:
        return [str(error)]
    return []


def faults_of_options(help_text, words):
    """Return the options that a help text does not know."""
    return [
        f"no option {option}"
        for option in options_of(words)
        if not re.search(rf"{re.escape(option)}\b", help_text)
    ]


def faults_of_python(words):
    """Return what is wrong behind `python`."""
    if words[0] == "-m":
        if importlib.util.find_spec(words[1]) is None:
            return [f"no module {words[1]}"]
        if not words[1].startswith("s3router"):
            return []
        return faults_of_options(help_of("-m", words[1]), words[2:])
    if not words[0].endswith(".py"):
        return []
    if not (ROOT / words[0]).is_file():
        return [f"no file {words[0]}"]
    if Path(words[0]).name == "train.py":
        return faults_of_recipe(words[0], words[1:])
    if not options_of(words[1:]):
        return []
    return faults_of_options(help_of(words[0]), words[1:])


def faults_of(words):
    """Return what is wrong with a command."""
    program, rest = words[0], words[1:]
    if program == "make":
        targets = [w for w in rest if "=" not in w]
        return [f"no target {w}" for w in targets if w not in make_targets()]
    if program == "python":
        return faults_of_python(rest)
    if program == "torchrun":
        scripts = [i for i, w in enumerate(rest) if w.endswith(".py")]
        return faults_of_python(rest[scripts[0] :]) if scripts else []
    if rest[0] not in help_of(*S3ROUTER):
        return [f"no subcommand {rest[0]}"]
    return faults_of_options(help_of(*S3ROUTER, rest[0]), rest[1:])


def test_documents_are_seen():
    names = {name_of(path) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= names
    assert len(list(commands(ROOT / "README.md"))) >= 8


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_can_be_run(path):
    wrong = [
        f"{shlex.join(words)}: {fault}"
        for words in commands(path)
        for fault in faults_of(words)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_imports_in_examples_exist(path):
    for block in PYTHON.finditer(path.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block["body"])):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), alias.name


def anchor(heading):
    """Return the anchor that a heading gets."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.strip().replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path):
    wrong = []
    for target, part in LINK.findall(path.read_text(encoding="utf-8")):
        file = path.parent / target if target else path
        if not file.exists():
            wrong.append(target)
        elif part and file.suffix == ".md":
            headings = re.findall(
                r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M
            )
            if part not in map(anchor, headings):
                wrong.append(f"{target}#{part}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(path):
    wrong = []
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for name in INLINE.findall(text):
        plain = re.fullmatch(r"[\w./-]+", name)
        if plain and name.startswith(tuple(TOP_LEVEL)):
            if not (ROOT / name).exists():
                wrong.append(name)
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make quickstart", None),
        ("make qickstart", "no target qickstart"),
        ("python recipes/commonvoice/trian.py", "no file"),
        ("python -m s3router.evaluation.tables README.md --check", None),
        ("python -m s3router.evaluation.tables --chek", "no option --chek"),
        ("python recipes/commonvoice/train.py hparams/xx.yaml", "no file"),
        (
            "python recipes/commonvoice/train.py hparams/zh_sparse.yaml "
            "--data_folder=/x --sparsity=0.1 --precision=bf16",
            None,
        ),
        (
            "python recipes/commonvoice/train.py hparams/zh_sparse.yaml "
            "--sparsty=0.1",
            "did you mean 'sparsity'",
        ),
    ],
)
def test_faults_are_seen(command, fault):
    found = faults_of(shlex.split(command))
    if fault is None:
        assert not found
    else:
        assert found and fault in found[0]
