"""What a comparison cannot be, told before anything runs.

Each check looks at the plain tree of the YAML, or at the cells that it makes.
Must not run anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from s3router.brains.hparams import flatten_hparams, known_settings, parse_yaml
from s3router.brains.method_settings import SHARED, refuse_unused
from s3router.comparison.cells import Cell
from s3router.errors import NotFoundError, SettingError, near
from s3router.masks.rules import check_sparsity

#: Given to each run by the comparison, or by what is its own output folder.
GIVEN = (
    "seed",
    "output_folder",
    "evaluate_test",
    "result_file",
    "save_folder",
    "subnetwork_folder",
    "train_log",
)


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
    for key in ("recipe", "output_folder", "baseline"):
        if not isinstance(tree.get(key) or "", str):
            raise SettingError(
                f"{path}: {key} is {tree[key]!r}, but must be a text"
            )
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
    for key in ("common", "each"):
        _check_given(f"{path}: {key}", tree.get(key) or {})


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
    _check_given(f"{path}: together", blocks[0])
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

    Raises
    ------
    SettingError
        If a method, `each` or `together` states one, or the comparison.
    """
    _check_given("--set", given)
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


def check_method(path: Path, row: Cell, own: Mapping) -> None:
    """Refuse a method that cannot do what its block asks for.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    row : Cell
        A row of it.
    own : mapping
        What its block sets, lists and the search included.

    Raises
    ------
    SettingError
        If a setting does not exist, or the method lacks it, or a start comes
        on top of stages.
    """
    who = f"{path}: method {row.method!r}"
    told = {**row.fixed, **row.shared, **row.own}
    known = known_settings(row.yaml)
    for key in [*told, *row.search, *row.starts]:
        if key not in known:
            raise SettingError(
                f"{who}: {row.yaml} has no setting {key!r}. "
                f"{near(key, sorted(known))}"
            )
    try:
        refuse_unused(row.yaml, {**told, **own}, own)
    except SettingError as error:
        raise SettingError(f"{who}: {error}") from None
    if row.starts and _tree(row).get("stages"):
        raise SettingError(
            f"{who}: {next(iter(row.starts))} is what {row.yaml} finds in a "
            "stage of its own; add stages: null to the method"
        )


def check_rows(
    path: Path,
    rows: Sequence[Cell],
    own: Mapping,
    places: Mapping[str, Iterable[str]],
) -> None:
    """Refuse rows whose runs could not be, for what all methods are given.

    Arguments
    ---------
    path : pathlib.Path
        For messages.
    rows : sequence of Cell
        All rows of a method that share one combination of settings.
    own : mapping
        What the method's block sets, the search included.
    places : mapping
        Where settings of all methods stand, and which stand there.

    Raises
    ------
    SettingError
        If the method lacks one of these settings, or a sparsity is none.
    """
    who = f"method {rows[0].method!r}"
    told = {**rows[0].fixed, **rows[0].shared}
    others = [key for key in told if key not in own]
    try:
        refuse_unused(rows[0].yaml, told, others, SHARED)
    except SettingError as error:
        # It names the setting first.
        key = str(error).partition(" ")[0]
        for place, keys in places.items():
            if key in keys:
                raise SettingError(
                    f"{path}: {place}: {who}: {error}; set it in the blocks "
                    "of these alone"
                ) from None
        raise SettingError(f"{path}: {who}: {error}") from None
    for row in rows:
        for chosen in row.candidates():
            _check_share(f"{path}: {who}", row.settings(chosen, row.seeds[0]))


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


def check_data(path: str, cells: Sequence[Cell], here: bool) -> None:
    """Refuse to start without data.

    Arguments
    ---------
    path : str
        The comparison's YAML.
    cells : sequence of Cell
        All rows.
    here : bool
        Whether this machine reads them; on others the folder is not looked
        for.

    Raises
    ------
    SettingError
        If a recipe has a data folder and none is set.
    NotFoundError
        If it is not there.
    """
    advice = "give --set data_folder=/path/to/cv-corpus"
    for cell in cells:
        if "data_folder" not in known_settings(cell.yaml):
            continue
        folder = cell.settings({}, 1).get("data_folder")
        if folder is None:
            folder = _tree(cell)["data_folder"]
        tag = getattr(getattr(folder, "tag", None), "value", None)
        if folder is None or tag == "!PLACEHOLDER":
            raise SettingError(f"{path}: data_folder has no value; {advice}")
        # What a reference comes to is known to the run alone.
        if here and not tag and not Path(str(folder)).expanduser().is_dir():
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
    _check_given(f"{path}: method {name!r}", {**block, **search})
    for key, values in {**block, **search}.items():
        if key == "method" and _is_list(values):
            raise SettingError(
                f"{path}: method {name!r}: method is {values}; each needs a "
                "block of its own"
            )
        if _is_list(values):
            _check_once(path, f"method {name!r}: {key}", values)


def _is_list(values: object) -> bool:
    return type(values) is list and bool(values)


def _check_once(path: Path, what: str, values: Sequence) -> None:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise SettingError(f"{path}: {what}: {value!r} is there twice")


def _check_share(who: str, settings: Mapping) -> None:
    share = settings.get("sparsity", 0.0)
    if not isinstance(share, Mapping):
        check_sparsity(share, f"{who}: sparsity")
        return
    for part, value in share.items():
        check_sparsity(value, f"{who}: sparsity of {part!r}")


def _check_given(where: str, keys: Iterable[str]) -> None:
    """Refuse settings that would be passed over, or shared by all runs."""
    for key in GIVEN:
        if key in keys:
            raise SettingError(
                f"{where}: {key!r} is given to each run by the comparison; "
                "leave it out (seeds and output_folder are of the comparison)"
            )


def _tree(cell: Cell) -> dict:
    settings = cell.settings({}, 1)
    return parse_yaml(flatten_hparams(cell.yaml, settings), cell.yaml)
