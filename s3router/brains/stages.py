"""Experiments of several stages: each starts from what earlier ones found.

Fine-tune then prune, one-shot pruning, the lottery ticket: the key `stages`
lists what differs from stage to stage. Each is a whole run with a folder,
checkpoints and a result of its own, so that an experiment goes on between and
inside stages. Must not train.
"""

import re
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from s3router.brains.hparams import (
    flatten_hparams,
    parse_yaml,
    settled_hparams,
)
from s3router.brains.run_settings import STARTS, changed_setting, settings_of
from s3router.errors import S3RouterError, SettingError, near
from s3router.formats.files import write_json
from s3router.formats.subnetwork import Subnetwork
from s3router.methods.registry import build_method

#: Of a stage alone: this share of a setting of the experiment.
SHARES = {"of_sparsity": "sparsity", "of_epochs": "number_of_epochs"}
#: Folders that a run makes itself, or files of a stage's own.
_TAKEN = ("save", "subnetwork", "tensorboard", ".", "..")
_OWN_FILES = ("save_folder", "subnetwork_folder", "train_log")
_MARK = "finished.json"


def stages_of(path: str, overrides: str | Mapping) -> list[dict]:
    """Return what each stage of an experiment is given beside its YAML.

    Arguments
    ---------
    path : str
        The experiment's YAML. Its key `stages` is null for one stage, or a
        list of blocks of settings, each with a `name`; `of_sparsity` and
        `of_epochs` there are shares of the experiment's own.
    overrides : str or mapping
        Settings of the command line. They hold in every stage, and so must
        not be what a stage sets itself.

    Returns
    -------
    list of dict
        Overrides for `load_hparams`, in order. The last stage has the
        experiment's own output folder, each earlier one the folder of its
        name in there.

    Raises
    ------
    SettingError
        If a stage has no name, or one that was there, or an unknown setting,
        or one that the command line sets too, or starts from a stage that
        does not come before it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "two.yaml"
    >>> _ = path.write_text('''
    ... output_folder: out
    ... method: full
    ... start_weights: null
    ... result_file: null
    ... stages:
    ...     - {name: tuned}
    ...     - {name: pruned, method: mask_tuning, start_weights: tuned}
    ... ''')
    >>> first, last = stages_of(str(path), "")
    >>> first["output_folder"], last["output_folder"], last["start_weights"]
    ('out/tuned', 'out', 'out/tuned/subnetwork')
    """
    given = dict(parse_yaml(overrides, "the command line"))
    tree = parse_yaml(flatten_hparams(path, given), path)
    stages = tree.get("stages")
    if not stages:
        return [given]
    _check_stages(stages, given)
    names = [stage["name"] for stage in stages]
    output = Path(str(_resolved(tree, "output_folder")))
    folders: dict[str, Path] = {}
    found = []
    for number, stage in enumerate(stages, start=1):
        settings = _checked(stage, number, tree, folders)
        name = settings.pop("name")
        last = number == len(stages)
        folders[name] = output if last else output / name
        for key in STARTS:
            start = settings.get(key)
            if start in names[number - 1 :]:
                raise SettingError(
                    f"stages: {name}: {key} is {start!r}, a stage that does "
                    "not come before it"
                )
            if start in folders:
                settings[key] = str(folders[start] / "subnetwork")
            elif start is not None and not Path(str(start)).is_dir():
                raise SettingError(
                    f"stages: {name}: {key} is {start!r}: "
                    f"{near(str(start), names[: number - 1])}It is neither an "
                    "earlier stage nor the folder of a subnetwork"
                )
        _settle_shares(settings, tree)
        settings["output_folder"] = str(folders[name])
        if not last:
            settings["result_file"] = str(folders[name] / "result.json")
            settings["evaluate_test"] = False
        found.append({**given, **settings})
    return found


def check_stages(path: str, stages: Iterable[Mapping]) -> None:
    """Refuse what a later stage could not be before the first one trains.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    stages : iterable of mapping
        Of `stages_of`.

    Raises
    ------
    SettingError
        If a setting of a stage cannot be, whatever the encoder is.
    """
    for settings in stages:
        settled = settled_hparams(path, dict(settings))
        build_method(**settled["subnetwork_method"])


def is_finished(path: str, overrides: Mapping) -> bool:
    """Return whether a stage has run to its end with just these settings.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    overrides : mapping
        Of `stages_of`.

    Returns
    -------
    bool
        True if `mark_finished` was told so, and the subnetwork is sound.

    Raises
    ------
    SettingError
        If it has ended with other settings.
    """
    folder = Path(overrides["output_folder"])
    if not (folder / _MARK).is_file():
        return False
    try:
        Subnetwork.load(folder / "subnetwork")
    except S3RouterError:
        return False
    now = settings_of(path, overrides, folder)
    if changed := changed_setting(folder / _MARK, now):
        raise SettingError(
            f"the stage in {folder} has ended with other settings: {changed}; "
            "choose another --output_folder, or delete it to run it again"
        )
    return True


def mark_finished(path: str, overrides: Mapping) -> None:
    """Note that a stage has run to its end; on the main process only.

    Arguments
    ---------
    path, overrides
        As of `is_finished`.
    """
    folder = Path(overrides["output_folder"])
    write_json(folder / _MARK, settings_of(path, overrides, folder))


def _check_stages(stages: object, given: Mapping) -> None:
    """Raise SettingError where a list of stages cannot be run."""
    if not isinstance(stages, list):
        raise SettingError(
            f"stages: {stages!r} is no list of blocks, each with a name"
        )
    for number, stage in enumerate(stages, start=1):
        if not isinstance(stage, Mapping) or not isinstance(
            stage.get("name"), str
        ):
            raise SettingError(
                f"stages: number {number} is {stage!r}, but must be a block "
                "of settings with a name, as {name: tuned, method: full}"
            )
        for key in stage:
            if key in given:
                raise SettingError(
                    f"{key} is {given[key]!r} on the command line, but the "
                    f"stage {stage['name']!r} sets it to {stage[key]!r}; give "
                    "--stages=... to change it there"
                )
    for key in _OWN_FILES:
        if key in given:
            raise SettingError(
                f"{key}: every stage has its own, in its folder; leave it out, "
                "or choose --output_folder"
            )


def _checked(
    stage: Mapping, number: int, tree: Mapping, earlier: Mapping
) -> dict:
    """Return a stage's settings, or say what is wrong with them."""
    name = stage["name"]
    if name in earlier or name in _TAKEN or not re.fullmatch(r"[\w.-]+", name):
        raise SettingError(
            f"stages: {name!r} cannot be the name of number {number}: names "
            "are folders, letters and digits, each is there once, and "
            f"{', '.join(_TAKEN[:3])} are taken"
        )
    for key in stage:
        if key not in ("name", *SHARES) and key not in tree:
            raise SettingError(
                f"stages: {name}: there is no setting {key!r}. "
                f"{near(str(key), map(str, tree))}"
            )
    return dict(stage)


def _settle_shares(settings: dict, tree: Mapping) -> None:
    """Replace a stage's shares by what they come to."""
    for share, key in SHARES.items():
        if share not in settings:
            continue
        part = settings.pop(share)
        number = isinstance(part, int | float) and not isinstance(part, bool)
        if not number or not 0 <= part <= 1:
            raise SettingError(
                f"stages: {share} is {part!r}, but a share of {key} is a "
                "number from 0 to 1"
            )
        if not isinstance(tree[key], int | float):
            raise SettingError(
                f"stages: {share} is a share of {key}, which is {tree[key]!r} "
                "and no number; give each stage its own"
            )
        value = part * tree[key]
        if key == "number_of_epochs":
            settings[key] = max(1, round(value))
        else:
            settings[key] = round(value, 10)


def _resolved(tree: Mapping, key: str) -> object:
    """Return one value of a YAML, without building what else it names."""
    needed: dict[str, object] = {}
    waiting = [key]
    while waiting:
        name = waiting.pop()
        if name in tree and name not in needed:
            needed[name] = tree[name]
            waiting += re.findall(r"<(\w+)>", _dumped({name: tree[name]}))
    return load_hyperpyyaml(_dumped(needed))[key]


def _dumped(tree: Mapping) -> str:
    text = StringIO()
    YAML().dump(dict(tree), text)
    return text.getvalue()
