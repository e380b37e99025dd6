"""What in mask tuning matters on an encoder? Each setting changed alone.

    python benchmarks/encoder_controls.py tiny
    python benchmarks/encoder_controls.py tiny --controls "10%" "random, fixed"

Starts from half of all linear layers, as `encoder.py` has it, and changes one
thing a row: how much is removed, where, by which rule, how scores start, and
whether the mask is trained at all. Rates are searched on dev, over the same
values for every trained mask; test is read once for each seed. Work of
`encoder.py` in the same `--work` is not done again. Must not be imported.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoder_data import shared_data
from encoder_jobs import Cell, run_jobs
from encoder_options import (
    add_options,
    base_trials,
    check_options,
    dev_and_test_limit,
)
from encoder_plot import labels
from encoder_report import difference, tuning_row
from encoder_workbench import Place, workbench

from s3router.errors import exit_on_error, one_of
from s3router.evaluation.results import write_result
from s3router.evaluation.table_format import (
    format_points,
    format_share,
    format_table,
)

BASE = "50%"
#: Name to what it changes in the settings of mask tuning.
CONTROLS: dict[str, dict[str, object]] = {
    BASE: {},
    "30%": {"sparsity": 0.3},
    "10%": {"sparsity": 0.1},
    "feed-forward": {"targets": "feed_forward"},
    "attention": {"targets": "attention"},
    "scores > 0, from 50%": {"rule": "positive"},
    "scores > 0, from 0%": {"rule": "positive", "sparsity": 0.0},
    "scores at random": {"init": "kaiming_uniform"},
    "scores of weights": {"init": "weight_magnitude_with_scale"},
    "scores normal": {"init": "normal"},
    "sigmoid": {"surrogate": "sigmoid"},
    "scores in bfloat16": {"score_dtype": "bfloat16"},
    "magnitude, fixed": {},
    "random, fixed": {"init": "kaiming_uniform"},
}
#: Their scores do not train; the head on them does.
FIXED = ("magnitude, fixed", "random, fixed")
RATES = (4e-3, 8e-3, 1.6e-2)
RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "task": "task",
    "labels": "labels",
    "control": "mask",
    "rate": "rate",
    "removed": "removed",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "points": f"against {BASE} [95% CI]",
    "measure": "of",
}


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("encoder", nargs="?", default="tiny", metavar="ENCODER")
    add("--controls", nargs="*", default=list(CONTROLS), metavar="NAME")
    add("--rates", nargs="+", type=float, default=list(RATES))
    add_options(parser, ["ar_commands", "zh_dsp20"], [2.0])
    options = parser.parse_args(arguments)
    check_options(options)
    for name in options.controls:
        one_of(name, CONTROLS, "control")
    return options


def _cells(
    options: argparse.Namespace, place: Place
) -> dict[tuple[str, str, float | None], Cell]:
    """Return the cell of each control, task and minutes; `BASE` is there."""
    names = list(dict.fromkeys([BASE, *options.controls]))
    return {
        (name, base["task"], base["minutes"]): Cell(
            place,
            {
                **base,
                "method": "mask_tuning",
                "settings": {
                    "targets": "all",
                    "sparsity": 0.5,
                    **CONTROLS[name],
                },
            },
            (0.0,) if name in FIXED else tuple(options.rates),
            tuple(range(options.seeds)),
        )
        for base in base_trials(options)
        for name in names
    }


def _row(name: str, cell: Cell, base: Cell) -> dict[str, object]:
    """Return what a control found, and how far it is from the base."""
    row = {"control": name, **tuning_row(cell)}
    if cell is not base:
        row["against_base"] = difference(cell, base)
    return row


def _text(row: Mapping) -> dict[str, object]:
    against = row.get("against_base")
    return {
        **row,
        "labels": labels(row["minutes"]),
        "rate": f"{row['rate']:g}",
        "removed": format_share(row["removed"]),
        "dev": f"{100 * row['dev']:.1f}",
        "test": str(row["test"]),
        "points": format_points(against) if against else "",
    }


@exit_on_error
def main(arguments: list[str]) -> None:
    """Run the controls; print and write what they found."""
    options = _arguments(arguments)
    place = Place(
        options.encoder,
        str(shared_data()),
        str(options.work),
        options.device,
        dev_and_test_limit(options),
    )
    about = workbench(place).about()
    cells = _cells(options, place)
    run_jobs(cells.values(), [], options.jobs)
    rows = [
        _row(name, cell, cells[BASE, *rest])
        for (name, *rest), cell in cells.items()
    ]
    short = Path(options.encoder).name
    path = options.output or RESULTS / f"controls_{short}.json"
    write_result(
        path,
        config={k: v for k, v in vars(options).items() if k != "encoder"},
        seed=0,
        metrics={"rows": rows},
        extra={"benchmark": "encoder_controls", "encoder": about},
    )
    print(format_table([_text(row) for row in rows], COLUMNS))
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
