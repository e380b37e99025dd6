"""Imports run one way, and a device needs neither torch nor SpeechBrain."""

import ast
import graphlib
import subprocess
import sys

from repository_files import ROOT, name_of, package_files, parse

# Which parts of the package each part may import, beside itself. What runs
# on a device stands at the top; cli and quickstart may use everything.
BASE = {"errors", "formats"}
MAY_IMPORT = {
    "errors": set(),
    "formats": {"errors"},
    "masks": BASE,
    "runtime": BASE,
    "data": BASE | {"runtime"},
    "models": BASE | {"masks"},
    "methods": BASE | {"masks", "models"},
    "evaluation": BASE | {"runtime"},
    "export": BASE | {"masks", "models", "runtime", "data", "evaluation"},
    "brains": BASE
    | {"masks", "methods", "data", "models", "evaluation", "export"},
}
MAY_IMPORT["comparison"] = BASE | {"brains", "evaluation", "masks", "runtime"}
FREE = {"cli", "quickstart"}
# Third-party packages of the parts that must stay light; others are free.
THIRD_PARTY = {
    "errors": set(),
    "formats": {"numpy", "safetensors", "zstandard"},
    "masks": {"numpy", "torch"},
    "runtime": {"numpy", "onnxruntime", "soundfile"},
    "evaluation": {"numpy", "jiwer", "kaldialign", "scipy"},
}
# What `pip install s3router` does not bring.
NOT_IN_BASE = (
    "torch torchaudio speechbrain hyperpyyaml transformers onnx onnxscript "
    "onnxruntime sentencepiece jiwer kaldialign tensorboard sklearn scipy "
    "matplotlib tqdm espeakng_loader peft zstandard"
).split()


def part_of(path):
    """Return the part of the package that a file belongs to."""
    first = path.relative_to(ROOT / "s3router").parts[0]
    return first.removesuffix(".py")


def imported(path):
    """Yield (line, dotted name) of all imports, those in functions too."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.lineno, node.module
            if node.module == "s3router":
                for alias in node.names:
                    yield node.lineno, f"s3router.{alias.name}"


def test_the_order_has_no_circle():
    tuple(graphlib.TopologicalSorter(MAY_IMPORT).static_order())


def test_every_part_has_its_place():
    parts = {part_of(path) for path in package_files()} - {"__init__"}
    assert parts - FREE <= set(MAY_IMPORT), "a new part needs a place above"


def test_imports_run_one_way():
    wrong = []
    for path in package_files():
        part = part_of(path)
        if part in FREE:
            continue
        allowed = MAY_IMPORT.get(part, set()) | {part}
        for line, name in imported(path):
            pieces = name.split(".")
            if pieces[0] != "s3router" or len(pieces) == 1:
                continue
            if pieces[1] == "__version__":
                continue
            if pieces[1] not in allowed:
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_light_parts_stay_light():
    wrong = []
    for path in package_files():
        part = part_of(path)
        if part not in THIRD_PARTY:
            continue
        for line, name in imported(path):
            top = name.split(".")[0]
            known = top == "s3router" or top in sys.stdlib_module_names
            if not known and top not in THIRD_PARTY[part]:
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_inits_of_subpackages_only_document():
    files = [p for p in package_files() if p.name == "__init__.py"]
    assert len(files) >= 5
    for path in files:
        imports = [name for _, name in imported(path)]
        assert not imports, f"{name_of(path)} imports {imports}"


def test_recipes_and_commands_claim_no_package_name():
    for folder in ("recipes", "export", "hparams", "benchmarks", "tests"):
        found = list((ROOT / folder).rglob("__init__.py"))
        assert not found, f"{found[0]} would make {folder} importable"


def light_modules():
    """Return the modules that must import with the base install only."""
    files = [
        path
        for path in package_files()
        if part_of(path) in {"errors", "formats", "runtime", "cli"}
    ]
    names = [
        name_of(path).removesuffix(".py").removesuffix("/__init__")
        for path in files
    ]
    return sorted(name.replace("/", ".") for name in names)


def test_light_modules_are_found():
    names = light_modules()
    assert len(names) >= 10
    assert "s3router.runtime.recognizer" in names


BLOCKED_IMPORT = """
import importlib, sys
blocked = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Refuse())
for name in sys.argv[2].split(","):
    importlib.import_module(name)
loaded = blocked & {name.split(".")[0] for name in sys.modules}
assert not loaded, loaded
"""


def import_without(blocked, names):
    """Import modules in a fresh Python that lacks some packages."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            BLOCKED_IMPORT,
            ",".join(blocked),
            ",".join(names),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_device_code_imports_with_the_base_install():
    done = import_without(NOT_IN_BASE, light_modules())
    assert done.returncode == 0, done.stderr


def test_the_block_really_blocks():
    done = import_without(NOT_IN_BASE, ["s3router.models.heads"])
    assert done.returncode != 0
    assert "torch is not installed" in done.stderr
