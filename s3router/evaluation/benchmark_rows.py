"""Results of `benchmarks/` to rows of a table."""

from collections.abc import Mapping, Sequence

from s3router.evaluation.aggregate import Result, rate_text
from s3router.evaluation.table_format import (
    format_bytes,
    format_points,
    format_share,
)

ENCODER_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "method": "method",
    "rate": "rate",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "measure": "of",
    "mask": "mask minus it, points [95% CI]",
    "stored": "stored",
    "seeds": "seeds",
}
PROBE_COLUMNS = {
    "probe": "probe",
    "about": "what is read from the features",
    "measure": "of",
    "last": "last layer % [95% CI]",
    "best": "best layer % [95% CI]",
    "layer": "layer",
    "by_layer": "dev % by layer, from the transformer's input",
}
STUDY_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "method": "method",
    "parameters": "parameters",
    "name": "encoder",
    "hours": "hours heard",
    "teraflop": "teraflop",
    "test": "test % [95% CI]",
    "measure": "of",
}
CONTROL_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "control": "mask",
    "rate": "rate",
    "removed": "removed",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "measure": "of",
    "points": "points against the first [95% CI]",
    "seeds": "seeds",
}


def encoder_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the encoder benchmark's table.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder.py`: `metrics` holds `tuning` and
        `comparisons`.

    Returns
    -------
    list of dict
        Keys of `ENCODER_COLUMNS`, values as they are shown.
    """
    rows = []
    for result in results:
        differences = {
            (pair["task"], pair["minutes"], pair["pair"]): pair
            for pair in result["metrics"]["comparisons"]
        }
        for row in result["metrics"]["tuning"]:
            task, minutes, method = (
                row[key] for key in ("task", "minutes", "method")
            )
            pair = differences.get((task, minutes, f"mask_tuning - {method}"))
            rows.append(
                {
                    "task": task,
                    "labels": _labels(minutes),
                    "method": method,
                    "rate": f"{row['rate']:g}",
                    "dev": f"{100 * row['dev']:.1f}",
                    "test": rate_text(row["test"]),
                    "measure": row["measure"],
                    "mask": pair and format_points(pair),
                    "stored": format_bytes(row["stored_bytes"]),
                    "seeds": len(row["by_seed"]),
                    "command": result["command"],
                }
            )
    return rows


def probe_cells(probe: Mapping[str, object]) -> dict[str, object]:
    """Return what a probe of frozen features found, as it is shown.

    Arguments
    ---------
    probe : mapping
        One of `metrics["probes"]` of `benchmarks/encoder.py`.

    Returns
    -------
    dict
        Keys of `PROBE_COLUMNS`.
    """

    def text(layer: str) -> str:
        test = probe[layer]["test"]
        values = (100 * test[key] for key in ("rate", "low", "high"))
        return "{:.1f} [{:.1f}, {:.1f}]".format(*values)

    return {
        **{key: probe[key] for key in ("probe", "about", "measure")},
        "last": text("last"),
        "best": text("best"),
        "layer": probe["best"]["layer"],
        "by_layer": " ".join(f"{100 * x:.0f}" for x in probe["dev_by_layer"]),
    }


def probe_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of probes.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder.py`: `metrics` holds `probes`.

    Returns
    -------
    list of dict
        Keys of `PROBE_COLUMNS`, values as they are shown.
    """
    return [
        {**probe_cells(probe), "command": result["command"]}
        for result in results
        for probe in result["metrics"]["probes"]
    ]


def study_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the tables over pre-training.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder_study.py`: `metrics` holds `rows`.

    Returns
    -------
    list of dict
        Keys of `STUDY_COLUMNS`, values as they are shown.
    """
    return [
        {
            **{key: row[key] for key in ("task", "method", "measure")},
            "labels": _labels(row["minutes"]),
            "name": row["name"].rstrip("/").removesuffix("/encoder"),
            "parameters": f"{row['parameters'] / 1e6:.1f} M",
            "hours": f"{row['hours']:.0f}",
            "teraflop": f"{row['teraflop']:.0f}",
            "test": rate_text(row["test"]),
            "command": result["command"],
        }
        for result in results
        for row in result["metrics"]["rows"]
    ]


def control_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of mask tuning's settings.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder_controls.py`: `metrics` holds `rows`.

    Returns
    -------
    list of dict
        Keys of `CONTROL_COLUMNS`, values as they are shown.
    """
    return [
        {
            **{key: row[key] for key in ("task", "control", "measure")},
            "labels": _labels(row["minutes"]),
            "rate": f"{row['rate']:g}",
            "removed": format_share(row["removed"]),
            "dev": f"{100 * row['dev']:.1f}",
            "test": rate_text(row["test"]),
            "points": format_points(against)
            if (against := row.get("against_base"))
            else None,
            "seeds": len(row["by_seed"]),
            "command": result["command"],
        }
        for result in results
        for row in result["metrics"]["rows"]
    ]


def _labels(minutes: float | None) -> str:
    return "all" if minutes is None else f"{minutes:g}"
