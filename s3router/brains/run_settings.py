"""What a run was started with, so that it goes on with nothing else.

A folder keeps the settings of its run. Whoever comes back with others would
otherwise get what the first ones trained, under the name of the second.
Comments, paths of data and what only says how a run is done do not count.
"""

from collections.abc import Mapping
from pathlib import Path

from s3router.brains.hparams import flatten_hparams, parse_yaml
from s3router.errors import NotFoundError, SettingError
from s3router.formats.files import read_json, write_json

#: Where and how a run is done, not what.
HOW = (
    "cache_folder",
    "cache_front_end",
    "cache_megabytes",
    "ckpt_interval_minutes",
    "clip_memory",
    "data_folder",
    "eval_batch_seconds",
    "evaluate_test",
    "num_workers",
    "output_folder",
    "result_file",
    "reuse_folder",
    "save_environment",
    "save_folder",
    "stages",
    "subnetwork_folder",
    "train_log",
    "variant",
)
#: Settings that name another subnetwork, or an earlier stage.
STARTS = ("start_mask", "start_weights", "start_head")
#: In the output folder, from the run's start on.
SETTINGS_FILE = "settings.json"


def hold_settings(path: str, overrides: Mapping, hparams: Mapping) -> None:
    """Note what a run is started with, or check it where one goes on.

    On the main process only.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    overrides : mapping
        What it is given.
    hparams : mapping
        With `output_folder` and `checkpointer`.

    Raises
    ------
    SettingError
        If there are checkpoints of a run with other settings.
    """
    folder = Path(hparams["output_folder"])
    now = settings_of(path, overrides, folder)
    if hparams["checkpointer"].find_checkpoint() is None:
        write_json(folder / SETTINGS_FILE, now)
    elif changed := changed_setting(folder / SETTINGS_FILE, now):
        raise SettingError(
            f"the run in {folder} was started with {changed}; choose another "
            "--output_folder, or delete it to run it again"
        )


def changed_setting(file: Path, now: Mapping) -> str | None:
    """Return what differs from settings that were noted, for a message.

    Arguments
    ---------
    file : pathlib.Path
        Where `settings_of` was written to.
    now : mapping
        Of `settings_of`.

    Returns
    -------
    str or None
        None if nothing does, or nothing was noted. Settings that only one
        of both has, as those of another version, are let through.
    """
    try:
        before = read_json(file)
    except NotFoundError:
        return None
    for key in sorted(before.keys() & now.keys()):
        if not _same(before[key], now[key]):
            return f"{key} {before[key]!r}, and not {now[key]!r}"
    return None


def settings_of(
    path: str, overrides: Mapping, folder: Path
) -> dict[str, object]:
    """Return what a YAML and its overrides make, as JSON has it.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    overrides : mapping
        What it is given.
    folder : pathlib.Path
        Its output folder.

    Returns
    -------
    dict
        By name; references as the text that stands there, starts inside of
        the experiment relative to its folder. Without `HOW`.

    Example
    -------
    >>> file = getfixture("tmp_path") / "one.yaml"
    >>> _ = file.write_text('''
    ... output_folder: out
    ... lr: 1.0e-2  # of all
    ... rates: [!ref <lr>, 0.5]
    ... start_mask: null
    ... ''')
    >>> given = {"start_mask": "out/tuned/subnetwork"}
    >>> settings_of(str(file), given, Path("out"))
    {'lr': 0.01, 'rates': ['!ref <lr>', 0.5], 'start_mask': 'tuned/subnetwork'}
    """
    tree = parse_yaml(flatten_hparams(path, dict(overrides)), path)
    return {
        str(key): _inside(value, folder) if key in STARTS else _plain(value)
        for key, value in tree.items()
        if key not in HOW
    }


def _plain(node: object) -> object:
    """Return a node of a YAML without comments, styles and tag objects."""
    if isinstance(node, Mapping):
        plain: object = {str(k): _plain(v) for k, v in node.items()}
    elif isinstance(node, list | tuple):
        plain = [_plain(one) for one in node]
    elif isinstance(node, bool) or node is None:
        plain = node
    elif isinstance(node, int):
        plain = int(node)
    elif isinstance(node, float):
        plain = float(node)
    else:
        plain = str(getattr(node, "value", node))
    tag = str(getattr(getattr(node, "tag", None), "value", None))
    if not tag.startswith("!"):
        return plain
    return {tag: plain} if isinstance(plain, dict) else f"{tag} {plain}"


def _inside(start: object, folder: Path) -> object:
    """Return a start that is the experiment's own relative to its folder."""
    for root in (folder, folder.parent):
        if root.name and str(start).startswith(f"{root}/"):
            return str(Path(str(start)).relative_to(root))
    return _plain(start)


def _same(before: object, now: object) -> bool:
    """Return whether settings agree; of objects, what both versions set."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before == now
    tags = [next(iter(one), "") for one in (before, now)]
    if tags[0] != tags[1] or not tags[0].startswith("!"):
        return before == now
    inner, other = before[tags[0]], now[tags[0]]
    return all(_same(inner[k], other[k]) for k in inner.keys() & other.keys())
