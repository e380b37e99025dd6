"""What a comparison is: methods, settings, seeds, and values to search.

A YAML of its own, plain, without objects:

    recipe: recipes/commonvoice/train.py
    output_folder: results/compare/words
    baseline: full
    seeds: [1, 2, 3]
    common: {encoder: tiny, train_minutes: 10}
    each: {language: [zh-CN, ar]}
    methods:
        full: {yaml: hparams/zh_full.yaml, search: {lr_weights: [2e-3, 4e-3]}}
        mask_tuning:
            yaml: hparams/zh_sparse.yaml
            sparsity: [0.1, 0.5]
            search: {lr_scores: [2e-3, 8e-3]}

Settings of `common` hold in every run. Lists under `each` are combined with
each other, and so are lists within a method. What changes together stands in
a list of its own, combined with `each`:

    together:
        - {train_minutes: 2, number_of_epochs: 60}
        - {train_minutes: 10, number_of_epochs: 15}

A method may start from what an earlier one found, with the same seed:

        finetune_prune: {..., start_weights: {method: full}}

Must not run anything.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3router.brains.hparams import parse_yaml
from s3router.brains.run_settings import STARTS
from s3router.comparison.cells import Cell
from s3router.comparison.checks import (
    check_method,
    check_overrides,
    check_rows,
    check_search,
    check_together,
    check_tree,
)
from s3router.errors import NotFoundError, SettingError, near

KEYS = (
    "recipe",
    "output_folder",
    "baseline",
    "seeds",
    "common",
    "each",
    "together",
    "methods",
)


@dataclass(frozen=True)
class Comparison:
    """A comparison that can be run.

    Arguments
    ---------
    recipe : str
        The recipe's script.
    output : pathlib.Path
        Where runs and results go.
    baseline : str
        The method that others are compared with.
    cells : list of Cell
        In the order of the file.
    """

    recipe: str
    output: Path
    baseline: str
    cells: list[Cell]


def read_comparison(
    path: str | Path, overrides: Mapping[str, object] | None = None
) -> Comparison:
    """Read and check the YAML of a comparison.

    Arguments
    ---------
    path : str or pathlib.Path
        The YAML.
    overrides : mapping, optional
        Settings of the command line; they go into `common`, but for
        `output_folder` and `seeds`, and must not be stated elsewhere.

    Returns
    -------
    Comparison
        All of its settings exist in the YAMLs of the methods.

    Raises
    ------
    NotFoundError
        If a file does not exist.
    SettingError
        If a key or a setting is unknown, or a method lacks one of its own
        block or of those of all methods, or a value cannot be, or methods are
        searched over different numbers of values.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such comparison: {path}")
    text = path.read_text(encoding="utf-8")
    tree = _plain(parse_yaml(text, str(path)), path)
    if not isinstance(tree, Mapping):
        raise SettingError(
            f"{path}: a comparison is a block of names and values, not a list "
            f"or a text. Known: {', '.join(KEYS)}"
        )
    given = dict(overrides or {})
    for key in ("output_folder", "seeds"):
        if key in given:
            tree[key] = _plain({key: given.pop(key)}, path)[key]
    for key in tree:
        if key not in KEYS:
            raise SettingError(
                f"{path}: a comparison has no {key!r}. {near(key, KEYS)}"
                f"Known: {', '.join(KEYS)}"
            )
    for key in ("recipe", "output_folder", "methods"):
        if not tree.get(key):
            raise SettingError(f"{path}: {key!r} is missing")
    check_tree(path, tree)
    if not Path(tree["recipe"]).is_file():
        raise NotFoundError(f"{path}: no such recipe: {tree['recipe']}")
    methods = tree["methods"]
    tree["together"] = check_together(path, tree)
    check_overrides(given, tree)
    places = {
        "--set": given,
        "common": tree.get("common") or {},
        "each": tree.get("each") or {},
        "together": tree["together"][0],
    }
    tree["common"] = {**places["common"], **given}
    baseline = tree.get("baseline") or next(iter(methods))
    if baseline not in methods:
        raise SettingError(
            f"{path}: the baseline {baseline!r} is none of the methods "
            f"{', '.join(methods)}"
        )
    cells = list(_cells(path, tree, places))
    check_search(path, cells)
    return Comparison(
        tree["recipe"], Path(tree["output_folder"]), baseline, cells
    )


def _cells(path: Path, tree: Mapping, places: Mapping) -> Iterator[Cell]:
    seeds = tuple(tree.get("seeds", [1]))
    shared_settings = [
        {**each, **together}
        for each in _combinations(tree.get("each") or {})
        for together in tree["together"]
    ]
    for shared in shared_settings:
        earlier: dict[str, list[Cell]] = {}
        for name, block in tree["methods"].items():
            settings = dict(block)
            yaml = settings.pop("yaml")
            search = settings.pop("search", None) or {}
            starts = _starts(path, name, settings, earlier)
            lists = {k: v for k, v in settings.items() if type(v) is list}
            fixed = {
                **tree["common"],
                **{k: v for k, v in settings.items() if k not in lists},
            }
            earlier[name] = [
                Cell(name, yaml, shared, own, fixed, search, seeds, starts)
                for own in _combinations(lists)
            ]
            asked = {**settings, **search}
            if shared is shared_settings[0]:
                check_method(path, earlier[name][0], asked)
            check_rows(path, earlier[name], asked, places)
            yield from earlier[name]


def _starts(
    path: Path,
    method: str,
    settings: dict[str, object],
    earlier: Mapping[str, Sequence[Cell]],
) -> dict[str, Cell]:
    """Take out of settings what other methods' runs give, as their cells."""
    found = {}
    for key in STARTS:
        value = settings.get(key)
        if not isinstance(value, Mapping):
            continue
        start = str(settings.pop(key).get("method"))
        if len(earlier.get(start, [])) != 1 or len(value) > 1:
            raise SettingError(
                f"{path}: method {method!r}: {key} is {value}, but must be "
                "{method: NAME} of one that comes before it and has no lists"
            )
        (found[key],) = earlier[start]
    return found


def _combinations(lists: Mapping[str, list]) -> list[dict[str, object]]:
    for key, values in lists.items():
        if type(values) is not list or not values:
            raise SettingError(f"{key}: expected a list, not {values!r}")
    return [
        dict(zip(lists, values, strict=True))
        for values in itertools.product(*lists.values())
    ]


def _plain(tree: Mapping, path: Path) -> dict:
    """Return the tree as plain numbers, texts, lists and mappings."""
    try:
        return json.loads(json.dumps(tree))
    except TypeError:
        raise SettingError(
            f"{path}: a comparison is plain YAML, without tags as !new or !ref"
        ) from None
