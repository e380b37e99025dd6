"""Every YAML can be run: its header, its keys, and what it builds.

Nothing is built here; the recipes' own tests do that. What a tag names must
exist, and take the arguments that stand below it.
"""

import inspect
import pydoc
import re
import shlex

import pytest
from repository_files import ROOT, name_of, repository_files
from ruamel.yaml import YAML

from s3router.brains.hparams import flatten_hparams
from s3router.errors import SettingError

SETTINGS = [
    path
    for path in repository_files(".yaml")
    if path.relative_to(ROOT).parts[0] in {"hparams", "recipes"}
]
# Not run by itself: what others extend.
SHARED = [path for path in SETTINGS if path.parent.name == "common"]
EXPERIMENTS = [path for path in SETTINGS if path not in SHARED]
LANGUAGES = "zh es ru de fr nl it sv ky tt tr en".split()
TAG = re.compile(r"!(?P<kind>new|name|apply):(?P<target>[\w.]+)")


def test_all_are_found():
    assert len(EXPERIMENTS) >= len(LANGUAGES)
    assert len(SHARED) >= 1
    on_disk = set((ROOT / "hparams").rglob("*.yaml"))
    assert on_disk <= set(SETTINGS), "git ignores a YAML"
    assert not list((ROOT / "hparams").rglob("*.yml")), "one ending: .yaml"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_yaml(language):
    path = ROOT / "hparams" / f"{language}_sparse.yaml"
    assert flatten_hparams(path)


def walk(node, where=""):
    """Yield (where, node) of a YAML tree."""
    yield where, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{where}[{index}]")


def faults(path):
    """Return what cannot be built, all of it, one line each."""
    text = flatten_hparams(path)
    found = []
    for where, node in walk(YAML().load(text)):
        tag = TAG.match(str(getattr(node, "tag", None) and node.tag.value))
        if tag is None:
            continue
        place = f"{name_of(path)}: {where}: {tag['target']}"
        try:
            target = pydoc.locate(tag["target"])
        except pydoc.ErrorDuringImport as error:
            target = found.append(f"{place}: {error}")
            continue
        if target is None:
            found.append(f"{place} does not exist")
            continue
        partial = tag["kind"] == "name"
        problem = does_not_take(target, node, partial)
        if problem:
            found.append(f"{place}: {problem}")
    return found


def does_not_take(target, node, partial):
    """Return why a callable does not take a node's arguments, or None."""
    try:
        signature = inspect.signature(target)
    except ValueError:
        return None  # built in: it has none
    if isinstance(node, dict):
        args, kwargs = [], {str(key): None for key in node}
    else:
        args, kwargs = list(node) if isinstance(node, list) else [], {}
    try:
        bind = signature.bind_partial if partial else signature.bind
        bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_what_it_names_exists_and_takes_its_arguments(path):
    found = faults(path)
    assert not found, "\n".join(found)


def test_faults_are_seen(tmp_path):
    path = ROOT / "hparams" / "broken.yaml"
    text = (
        "a: !new:s3router.models.heads.NoHead\n"
        "b: !new:s3router.models.heads.CTCHead\n    hiden_size: 3\n"
        "c: !name:torch.optim.Adam\n    lr: 0.1\n"
        "d:\n    - !apply:s3router.no_module.f\n        x: 1\n"
    )
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "name_of", str)
        found = faults(path)
    assert len(found) == 3
    assert "NoHead does not exist" in found[0]
    assert "hiden_size" in found[1] or "hidden_size" in found[1]
    assert "s3router.no_module.f does not exist" in found[2]


@pytest.mark.parametrize("path", SETTINGS, ids=name_of)
def test_its_header_says_what_it_is(path):
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.strip("# "))
    assert len([line for line in header if line]) >= 2, "what, and how to run"
    if path in EXPERIMENTS:
        starts = ("python ", "s3router ")
        commands = [h for h in header if h.startswith(starts)]
        assert commands, "a header gives the command"
        for command in commands:
            words = shlex.split(command)
            script = ROOT / words[1]
            assert script.is_file() or words[:2] == ["s3router", "compare"]
            assert words[2] == name_of(path), "another YAML's command"


def test_a_setting_that_no_parent_has_is_an_error():
    with pytest.raises(SettingError, match="sparsitty"):
        flatten_hparams(EXPERIMENTS[0], "sparsitty: 0.1")


def test_nothing_lies_at_the_top_but_what_belongs_there():
    """A run whose output folder went astray must not be committed."""
    folders = {
        path.relative_to(ROOT).parts[0]
        for path in repository_files("")
        if len(path.relative_to(ROOT).parts) > 1
    }
    known = "benchmarks docs export hparams recipes s3router tests".split()
    assert folders <= {*known, ".ci"}
