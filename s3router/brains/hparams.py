"""HyperPyYAML files that extend others, and settings that suit an encoder.

A recipe's YAML is a few lines that say what differs from a shared file, named
by the key `extends`. Everything stays one flat set of keys, so that any of
them can be overridden on the command line as in SpeechBrain. A shared file
may name `profiles`: settings that suit one encoder, which stand between the
files and the command line, so that `--encoder=tiny` brings rates that fit a
small encoder and an explicit `--lr_scores=...` still wins. For an encoder of
another name, `--settings_for=tiny` asks for them. A profile is a file beside
the shared one; who extends that may add a block to it, for what suits a method.
"""

from functools import cache
from io import StringIO
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from ruamel.yaml.error import YAMLError

from s3router.brains.schedule import check_schedule
from s3router.errors import NotFoundError, SettingError, flag, near, one_of


def flatten_hparams(path: str | Path, overrides: str | dict = "") -> str:
    """Return the one YAML text that a file, its parents and overrides make.

    Arguments
    ---------
    path : str or pathlib.Path
        The YAML of an experiment.
    overrides : str or dict
        Settings of the command line, as YAML text or mapping.

    Returns
    -------
    str
        HyperPyYAML without `extends` and `profiles`, tags still in place.

    Raises
    ------
    NotFoundError
        If the file or one that it extends does not exist.
    SettingError
        If a file is no valid YAML, or a setting exists in no parent.
    """
    given = parse_yaml(overrides, "the command line")
    tree, folder = _extended(Path(path))
    profiles = tree.pop("profiles")
    settings = {**tree, **given}
    wanted = settings.get("settings_for")
    if wanted is not None:
        one_of(wanted, profiles, "profile (settings_for)")
    else:
        wanted = settings.get("encoder")
    for part in profiles.get(wanted, []):
        profile = part if isinstance(part, dict) else _read(folder / part)
        _update(tree, profile, f"profile {wanted!r}")
    _update(tree, given, "the command line")
    text = StringIO()
    YAML().dump(tree, text)
    return text.getvalue()


@cache
def known_settings(yaml: str) -> frozenset[str]:
    """Return the names of all settings of a recipe's YAML.

    Kept, because a YAML takes a tenth of a second.
    """
    return frozenset(map(str, parse_yaml(flatten_hparams(yaml), yaml)))


def load_hparams(path: str | Path, overrides: str | dict = "") -> dict:
    """Load a recipe's YAML with all that it extends; build its objects.

    Arguments
    ---------
    path : str or pathlib.Path
        The YAML of an experiment.
    overrides : str or dict
        Settings of the command line, as YAML text or mapping.

    Returns
    -------
    dict
        The settings and the objects that they name.

    Raises
    ------
    NotFoundError, SettingError
        As of `settled_hparams`, before anything is built.
    """
    text = flatten_hparams(path, overrides)
    _settled(text, path)
    return load_hyperpyyaml(text)


def settled_hparams(path: str | Path, overrides: str | dict = "") -> dict:
    """Return the settings of a recipe's YAML, without building anything.

    Arguments
    ---------
    path : str or pathlib.Path
        The YAML of an experiment.
    overrides : str or dict
        Settings of the command line, as YAML text or mapping.

    Returns
    -------
    dict
        By name; every `!ref` is what it refers to, and an object is the
        block of its arguments.

    Raises
    ------
    NotFoundError
        If the file or one that it extends does not exist.
    SettingError
        If a setting exists in no parent, has no value yet, or is one that no
        training can have (`s3router.brains.schedule.check_schedule`).
    """
    return _settled(flatten_hparams(path, overrides), path)


def _settled(text: str, path: str | Path) -> dict:
    try:
        settled = resolve_references(text).getvalue()
    except ValueError as error:
        if "PLACEHOLDER" in str(error):
            key = str(error).split("'")[1]
            raise SettingError(
                f"{path}: {key!r} has no value; add --{key}=..."
            ) from None
        raise
    settings = parse_yaml(settled, str(path))
    check_schedule(settings)
    return settings


def _extended(path: Path) -> tuple[dict, Path]:
    """Return a file's tree with that of its parents, and where the last lies.

    `profiles` is there by name: a file, then blocks.
    """
    tree = _read(path)
    parent = tree.pop("extends", None)
    own = tree.pop("profiles", {})
    if parent is None:
        tree["profiles"] = {name: [file] for name, file in own.items()}
        return tree, path.parent
    base, folder = _extended(path.parent / parent)
    _update(base, tree, str(path))
    for name, block in own.items():
        base["profiles"][one_of(name, base["profiles"], "profile")] += [block]
    return base, folder


def _read(path: Path) -> dict:
    if not path.is_file():
        raise NotFoundError(f"no such YAML: {path}")
    return parse_yaml(path.read_text(encoding="utf-8"), str(path))


def parse_yaml(text: str | dict, where: str) -> dict:
    """Return the tree of a YAML text, its tags unread.

    Arguments
    ---------
    text : str or dict
        The text; a mapping is returned as it is.
    where : str
        Where it comes from, for the message.

    Returns
    -------
    dict
        Empty for an empty text.

    Raises
    ------
    SettingError
        If it is no valid YAML.
    """
    if isinstance(text, dict):
        return text
    try:
        tree = YAML().load(text)
    except YAMLError as error:
        line = " ".join(str(error).split())
        raise SettingError(f"{where} is no valid YAML: {line}") from None
    return {} if tree is None else tree


def _update(tree: dict, changes: dict, where: str) -> None:
    for key in changes:
        if key not in tree:
            raise SettingError(
                f"{where}: there is no setting {key!r}. "
                f"{near(str(key), map(str, tree))}"
            )
    for key, value in changes.items():
        if isinstance(tree[key], bool) and not isinstance(value, TaggedScalar):
            flag(str(key), value)
        if isinstance(value, dict) and not isinstance(tree[key], dict):
            # A block for a plain value, as a sparsity for each part.
            tree[key] = value
    try:
        recursive_update(tree, changes, must_match=False)
    except TypeError:
        raise SettingError(
            f"{where}: a setting has another shape than in the file "
            f"that it changes (a value where there is a block)"
        ) from None
