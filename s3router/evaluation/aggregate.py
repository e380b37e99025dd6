"""Results to rows of a table; several seeds of one setting become one row.

What a row means is decided here; how it looks, in `table_format.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.errors import DataError, FormatError
from s3router.evaluation.error_rates import ErrorRate
from s3router.evaluation.seeds import pool_seeds
from s3router.evaluation.table_format import format_bytes, format_share

Result = Mapping[str, object]

RECIPE_COLUMNS = {
    "language": "language",
    "data": "data",
    "minutes": "labelled min",
    "encoder": "encoder",
    "method": "method",
    "sparsity": "sparsity",
    "dev_cer": "dev CER %",
    "test_cer": "test CER % [95% CI]",
    "test_wer": "test WER % [95% CI]",
    "parameters": "trained",
    "bytes": "subnetwork",
    "seeds": "seeds",
}
QUICKSTART_COLUMNS = {
    "language": "language",
    "method": "method",
    "sparsity": "sparsity",
    "cer": "CER % [95% CI]",
    "wer": "WER % [95% CI]",
    "subnetwork_bytes": "subnetwork",
    "onnx_bytes": "ONNX",
    "real_time_factor": "real-time factor",
    "agrees": "torch = onnxruntime",
}
#: Settings that came later, and what results from before had without saying.
IMPLIED = {
    "mask_rule": "top",
    "score_dtype": "float32",
    "frozen": False,
    "reprune_every": 50,
    "ramp_share": 0.5,
    "taylor_batches": 50,
    "adapter_width": 64,
    "evaluate_test": True,
}
#: Subnetworks that a method may start from, by path.
STARTS = ("start_mask", "start_weights", "start_head")
#: Rates that a method has no use for, so that its results do not depend on
#: them. One that is not named here is taken to use all.
UNUSED_RATES = {
    "mask_tuning": ("weights",),
    "parp": ("scores",),
    "magnitude": ("scores",),
    "taylor": ("scores",),
    "random": ("scores",),
    "full": ("scores",),
    "lora": ("scores",),
    "ia3": ("scores",),
    "adapter": ("scores",),
    "head_only": ("scores", "weights"),
}


def recipe_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return one row per setting of a recipe's results.

    Results whose settings differ in the seed only (and in folders) are one
    setting. Settings that no column tells apart get a `note` that names what
    differs.

    Arguments
    ---------
    results : sequence of mapping
        As `read_result` gives them. `metrics` holds dev_cer (a fraction or
        an `ErrorRate`), test_cer and test_wer (`ErrorRate`); `extra` holds
        language, method, sparsity (measured, a fraction), labelled_minutes,
        trainable_parameters and subnetwork_bytes; `config` holds encoder and
        data_folder.

    Returns
    -------
    list of dict
        Keys of `RECIPE_COLUMNS`, with `command` and maybe `note`, sorted.

    Raises
    ------
    DataError
        If two results have the same setting and seed.
    """
    groups: dict[tuple, list[Result]] = {}
    for result in results:
        groups.setdefault(_setting(result), []).append(result)
    rows = [_recipe_row(group) for group in groups.values()]
    _note_differences(rows, [group[0] for group in groups.values()])
    return sorted(rows, key=_order)


def quickstart_rows(
    runs: Sequence[Mapping[str, object]],
) -> list[dict[str, object]]:
    """Return the rows of the quickstart's table, ready to print.

    Arguments
    ---------
    runs : sequence of mapping
        One per subnetwork: language, method, sparsity (a fraction or None),
        cer and wer (`ErrorRate`, its mapping, or None), subnetwork_bytes,
        onnx_bytes, real_time_factor (seconds of computing per second of
        audio), agrees (bool).

    Returns
    -------
    list of dict
        Keys of `QUICKSTART_COLUMNS`, values as they are shown.
    """
    return [
        {
            "language": run["language"],
            "method": run["method"],
            "sparsity": format_share(run.get("sparsity")),
            "cer": rate_text(run.get("cer")),
            "wer": rate_text(run.get("wer")),
            "subnetwork_bytes": format_bytes(run.get("subnetwork_bytes")),
            "onnx_bytes": format_bytes(run.get("onnx_bytes")),
            "real_time_factor": _number(run.get("real_time_factor"), "{:.3f}"),
            "agrees": run.get("agrees"),
        }
        for run in runs
    ]


def as_rate(value: object) -> ErrorRate | None:
    """Return an `ErrorRate` from what may stand for one in a result.

    Arguments
    ---------
    value : object
        An `ErrorRate`, its mapping, a plain fraction, or None.

    Returns
    -------
    ErrorRate or None
        The rate; of a plain fraction, without interval and counts.

    Raises
    ------
    FormatError
        If it is something else.
    """
    if value is None or isinstance(value, ErrorRate):
        return value
    if isinstance(value, int | float):
        return ErrorRate(value, None, None, 0, 0, 0, "char")
    try:
        return ErrorRate.from_dict(value)
    except (TypeError, AttributeError):
        raise FormatError(f"not an error rate: {value!r}") from None


def rate_text(value: object) -> str | None:
    """Return what `as_rate` takes as it is shown; None for None."""
    rate = as_rate(value)
    return None if rate is None else str(rate)


def _labels(result: Result) -> dict[str, object]:
    extra, config = result["extra"], result["config"]
    return {
        "language": extra.get("language"),
        "data": Path(str(config.get("data_folder", "-"))).name,
        "minutes": _number(extra.get("labelled_minutes"), "{:.1f}"),
        "encoder": _last_name(str(config.get("encoder"))),
        "method": extra.get("method"),
        # Not from the settings: these name a sparsity for any method.
        "sparsity": format_share(extra.get("sparsity")),
    }


def _last_name(encoder: str) -> str:
    # A folder's place says nothing; a hub's name is "owner/name".
    on_hub = encoder.count("/") == 1 and not encoder.startswith((".", "/"))
    return encoder if on_hub else Path(encoder).name


def _comparable(result: Result) -> dict[str, str]:
    """Return the settings that make a setting: all but seed and folders.

    One that is unset is left out too: it says no more than one that the
    version of an earlier result did not have. So are rates of what the method
    does not train.
    """
    config = {**IMPLIED, **result["config"]}
    rates = dict(config.get("learning_rates") or {})
    for key in STARTS:
        if config.get(key):
            # Which one, its path does not tell on another machine.
            config[key] = "given"
    unused = UNUSED_RATES.get(result["extra"].get("method"), ())
    if config.get("train_weights"):
        unused = ()
    for group in unused:
        config.pop(f"lr_{group}", None)
        rates.pop(group, None)
    config["learning_rates"] = rates or None
    return {
        key: str(value)
        for key, value in config.items()
        if "seed" not in key and "/" not in str(value) and value is not None
    }


def _setting(result: Result) -> tuple:
    labels = tuple(str(value) for value in _labels(result).values())
    return labels, tuple(sorted(_comparable(result).items()))


def _recipe_row(group: Sequence[Result]) -> dict[str, object]:
    group = sorted(group, key=lambda result: result["seed"])
    seeds = [result["seed"] for result in group]
    if len(set(seeds)) < len(seeds):
        raise DataError(
            f"two results of the same setting and seed: {group[0]['command']}"
        )
    row = _labels(group[0])
    for name in ("dev_cer", "test_cer", "test_wer"):
        rates = [as_rate(result["metrics"].get(name)) for result in group]
        pooled = pool_seeds(rates) if None not in rates else None
        row[name] = rate_text(pooled)
    extra = group[0]["extra"]
    row["parameters"] = _number(extra.get("trainable_parameters"), "{:,}")
    row["bytes"] = format_bytes(extra.get("subnetwork_bytes"))
    row["seeds"] = ", ".join(map(str, seeds))
    row["command"] = group[0]["command"]
    return row


def _number(value: float | None, template: str) -> str | None:
    return None if value is None else template.format(value)


def _order(row: Mapping[str, object]) -> tuple[str, ...]:
    names = ("language", "data", "minutes", "encoder", "method", "sparsity")
    return tuple(str(row.get(name)) for name in (*names, "note"))


def _note_differences(
    rows: Sequence[dict[str, object]], results: Sequence[Result]
) -> None:
    alike: dict[tuple, list[int]] = {}
    for index, result in enumerate(results):
        alike.setdefault(_setting(result)[0], []).append(index)
    for indices in alike.values():
        settings = [_comparable(results[index]) for index in indices]
        keys = sorted(set().union(*settings))
        differ = [k for k in keys if len({s.get(k) for s in settings}) > 1]
        for index, setting in zip(indices, settings, strict=True):
            if len(indices) > 1:
                rows[index]["note"] = ", ".join(
                    f"{key}={setting.get(key)}" for key in differ
                )
