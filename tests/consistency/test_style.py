"""House style that a machine can see: ruff, lengths, words that stay out."""

import ast
import re
import subprocess
import sys

import pytest
from repository_files import ROOT, name_of, parse, repository_files

LONGEST_FILE = 250
LONGEST_TEST_FILE = 500
LONGEST_FUNCTION = 60
TEXT_FILES = (
    ".py",
    ".md",
    ".yaml",
    ".yml",
    ".toml",
    ".json",
    ".in",
    ".svg",
    "Makefile",
    "run",
    "NOTICE",
)


@pytest.mark.parametrize("rule", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(rule):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *rule, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_the_pinned_one():
    pinned = re.search(
        r'"ruff==([\d.]+)"', (ROOT / "setup.py").read_text(encoding="utf-8")
    )
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[1] == pinned[1]


def lines_of_code(path):
    """Return how many lines a file has, docstrings left out.

    Otherwise a file could be made shorter by documenting less.
    """
    lines = len(path.read_text(encoding="utf-8").splitlines())
    for node in ast.walk(parse(path)):
        if isinstance(
            node,
            ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
        ):
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                lines -= first.end_lineno - first.lineno + 1
    return lines


def test_files_are_short():
    files = repository_files(".py")
    assert len(files) > 30
    long = []
    for path in files:
        lines = lines_of_code(path)
        in_tests = path.is_relative_to(ROOT / "tests")
        if lines > (LONGEST_TEST_FILE if in_tests else LONGEST_FILE):
            long.append(f"{name_of(path)}: {lines} lines")
    assert not long, "\n".join(long)


def code_lines(function):
    """Return how many lines a function's code spans, docstring left out."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_functions_are_short():
    # A recipe's main is read from top to bottom, as SpeechBrain's are.
    seen, long = 0, []
    for path in repository_files(".py"):
        top = path.relative_to(ROOT).parts[0]
        if top == "tests":
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                seen += 1
                if top == "recipes" and node.name == "main":
                    continue
                if code_lines(node) > LONGEST_FUNCTION:
                    long.append(
                        f"{name_of(path)}:{node.lineno} {node.name}: "
                        f"{code_lines(node)} lines"
                    )
    assert seen > 100
    assert not long, "\n".join(long)


def test_every_file_says_what_it_is_for():
    silent = [
        name_of(path)
        for path in repository_files(".py")
        if not ast.get_docstring(parse(path))
    ]
    assert not silent, "\n".join(silent)


# Written in pieces, so that this file is not found by itself.
LOCAL = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(?:work|root|home|Users|mnt/data)/\w",
            r"(?<![\w.])/" + r"tmp/\w+\.(?:md|log|txt)",
            "pip" + r"\.conf",
            r"--(?:extra-)?index" + "-url",
            r"\bAK" + r"IA[0-9A-Z]{16}\b",
            r"\b(?:gh" + r"p|hf)_[A-Za-z0-9]{30,}\b",
        ]
    )
)


def test_nothing_names_this_machine():
    files = repository_files(*TEXT_FILES)
    assert len(files) > 40
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if LOCAL.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:90]}")
    assert not found, "\n".join(found)


READS_CODE = re.compile(
    r"^(?:pickle|joblib|dill|shelve|marshal)\.(?:loads?|open|Unpickler)\("
    r"|^torch\.load\((?!.*weights_only=True)|^eval\(|^exec\(",
    re.S,
)


def test_nothing_downloaded_is_run():
    wrong = []
    for path in repository_files(".py"):
        if path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and READS_CODE.match(
                ast.unparse(node)
            ):
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("pickle.load(f)", True),
        ("torch.load(f, map_location='cpu')", True),
        ("torch.load(f, weights_only=True)", False),
        ("model.eval()", False),
    ],
)
def test_the_reader_of_calls_reads(code, refused):
    assert bool(READS_CODE.match(code)) == refused
