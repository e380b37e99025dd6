"""What a comparison cannot be, told before anything runs.

Each check looks at the plain tree of the YAML, or at the cells that it makes.
Must not run anything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.brains.hparams import flatten_hparams, known_settings, parse_yaml
from s3router.brains.method_settings import SHARED, refuse_unused
from s3router.comparison.cells import Cell
from s3router.errors import NotFoundError, SettingError, near
from s3router.masks.rules import check_sparsity

#: Given to each run by the comparison itself.
GIVEN = ("seed", "output_folder", "evaluate_test", "result_file")


def check_tree(path: Path, tree: Mapping) -> None:
    """Refuse a YAML whose parts are not what they must be.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    tree : mapping
        The whole of it, plain.

    Raises
    ------
    SettingError
        If a part has another shape, or a value is there twice, or a setting
        is one that the comparison gives itself.
    """
    for key in ("common", "each", "methods"):
        if not isinstance(tree.get(key) or {}, Mapping):
            raise SettingError(
                f"{path}: {key} is {tree[key]!r}, but must be a block of "
                "names and values"
            )
    seeds = tree.get("seeds", [1])
    if not _is_list(seeds) or not all(type(seed) is int for seed in seeds):
        raise SettingError(
            f"{path}: seeds are a list of whole numbers, not {seeds}"
        )
    _check_once(path, "seeds", seeds)
    for name, block in tree["methods"].items():
        _check_block(path, name, block)
    for key, values in (tree.get("each") or {}).items():
        if _is_list(values):
            _check_once(path, key, values)
    stated = [*(tree.get("common") or {}), *(tree.get("each") or {})]
    for block in tree["methods"].values():
        stated += [*block, *(block.get("search") or {})]
    for key in GIVEN:
        if key in stated:
            raise SettingError(
                f"{path}: {key!r} is given to each run by the comparison; "
                "leave it out (seeds and output_folder stand at the top)"
            )


def check_together(path: Path, tree: Mapping) -> list[dict[str, object]]:
    """Return the blocks of settings that change together; at least one.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    tree : mapping
        The whole of the YAML, plain.

    Raises
    ------
    SettingError
        If they are no list of blocks of the same settings.
    """
    blocks = tree.get("together") or [{}]
    if type(blocks) is not list or not all(
        isinstance(block, Mapping) for block in blocks
    ):
        raise SettingError(
            f"{path}: together is a list of settings, as "
            "[{train_minutes: 2, number_of_epochs: 60}]"
        )
    if len({frozenset(block) for block in blocks}) > 1:
        raise SettingError(f"{path}: all of together set the same settings")
    _check_once(path, "together", blocks)
    for key in blocks[0]:
        if key in (tree.get("each") or {}):
            raise SettingError(f"{path}: {key} is under each and together")
    return blocks


def check_overrides(given: Mapping, tree: Mapping) -> None:
    """Refuse settings for all runs where some runs have their own.

    Arguments
    ---------
    given : mapping
        Settings of the command line.
    tree : mapping
        The YAML; its methods and `together` were checked.
    """
    for key in given:
        for name, block in tree["methods"].items():
            if key in block or key in (block.get("search") or {}):
                raise SettingError(
                    f"--set {key}: the method {name!r} has its own {key!r}; "
                    "change it in the YAML of the comparison"
                )
        each, together = tree.get("each") or {}, tree["together"][0]
        for name, keys in (("each", each), ("together", together)):
            if key in keys:
                raise SettingError(
                    f"--set {key}: it is a list under `{name}`; change it in "
                    "the YAML of the comparison"
                )


def check_cell(path: Path, cell: Cell, own: Mapping) -> None:
    """Refuse a row whose runs could not be.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    cell : Cell
        The row.
    own : mapping
        What its method's block sets, the search included.

    Raises
    ------
    SettingError
        If a setting does not exist, or its method lacks it, or a sparsity is
        none, or a start comes on top of stages.
    """
    told = cell.settings({key: own[key] for key in cell.search}, 1)
    known = known_settings(cell.yaml)
    for key in [*told, *cell.starts]:
        if key not in known:
            raise SettingError(
                f"{path}: method {cell.method!r}: {cell.yaml} has no setting "
                f"{key!r}. {near(key, sorted(known))}"
            )
    told = {k: v for k, v in told.items() if k != "seed"}
    others = [key for key in told if key not in own]
    try:
        refuse_unused(cell.yaml, {**told, **own}, own)
        refuse_unused(cell.yaml, told, others, SHARED)
        _check_share(told.get("sparsity", 0.0))
    except SettingError as error:
        raise SettingError(f"{path}: method {cell.method!r}: {error}") from None
    if cell.starts and _tree(cell)["stages"]:
        raise SettingError(
            f"{path}: method {cell.method!r}: {next(iter(cell.starts))} is "
            f"what {cell.yaml} finds in a stage of its own; add stages: null "
            "to the method"
        )


def check_search(path: Path, cells: Sequence[Cell]) -> None:
    """Refuse methods that choose from different numbers of values.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    cells : sequence of Cell
        All rows.
    """
    counts = {cell.method: len(cell.candidates()) for cell in cells}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SettingError(
            f"{path}: every method must choose from as many values, or the "
            f"comparison is not fair: {told}"
        )


def check_data(path: str, cells: Sequence[Cell]) -> None:
    """Refuse to start where the data are not there.

    Arguments
    ---------
    path : str
        The comparison's YAML.
    cells : sequence of Cell
        All rows.

    Raises
    ------
    SettingError
        If no data folder is set.
    NotFoundError
        If there is none.
    """
    advice = "give --set data_folder=/path/to/cv-corpus"
    for cell in cells:
        if "data_folder" not in known_settings(cell.yaml):
            continue
        folder = cell.settings({}, 1).get("data_folder")
        if folder is None:
            folder = _tree(cell)["data_folder"]
        if not isinstance(folder, str):  # a placeholder
            raise SettingError(f"{path}: data_folder has no value; {advice}")
        if not Path(folder).is_dir():
            raise NotFoundError(
                f"{path}: there is no data_folder {folder}; {advice}"
            )


def _check_block(path: Path, name: str, block: object) -> None:
    """Refuse what is no block of a method."""
    if not isinstance(block, Mapping) or not isinstance(block.get("yaml"), str):
        raise SettingError(f"{path}: method {name!r} names no yaml")
    search = block.get("search") or {}
    if not isinstance(search, Mapping):
        raise SettingError(
            f"{path}: method {name!r}: search is {search!r}, but must be a "
            "block, as {lr_weights: [2.0e-3, 4.0e-3]}"
        )
    for key, values in search.items():
        if not _is_list(values):
            raise SettingError(
                f"{path}: method {name!r}: search over {key!r} needs a list "
                "of values"
            )
    for key, values in {**block, **search}.items():
        if _is_list(values):
            _check_once(path, f"method {name!r}: {key}", values)


def _is_list(values: object) -> bool:
    return type(values) is list and bool(values)


def _check_once(path: Path, what: str, values: Sequence) -> None:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise SettingError(f"{path}: {what}: {value!r} is there twice")


def _check_share(sparsity: object) -> None:
    parts = sparsity if isinstance(sparsity, Mapping) else {"all": sparsity}
    for part, value in parts.items():
        name = "sparsity" if part == "all" else f"sparsity of {part!r}"
        check_sparsity(value, name)


def _tree(cell: Cell) -> dict:
    settings = cell.settings({}, 1)
    return parse_yaml(flatten_hparams(cell.yaml, settings), cell.yaml)
