"""How good is a speech encoder, and will masks pay on it?

    python benchmarks/encoder.py tiny
    python benchmarks/encoder.py tiny path/to/folder --tasks ar_commands

Frozen features (linear probes), and mask tuning beside full tuning, LoRA of
equal bytes and a head alone at few labels. Each method's learning rate is
searched on dev over the same number of values; test is read once for each
seed, with the chosen rate. Real speech comes from `$S3ROUTER_SHARED/data`.
What was computed is kept in `--work`: a command that was stopped goes on
where it was. Must not be imported.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encoder_data import TASKS, shared_data
from encoder_jobs import Cell, run_jobs
from encoder_options import (
    add_options,
    base_trials,
    check_options,
    dev_and_test_limit,
)
from encoder_probes import PROBES, ProbeSizes
from encoder_report import print_report, write_report
from encoder_workbench import Place, workbench

from s3router.errors import SettingError, exit_on_error, one_of

#: Peak learning rates that dev chooses from. Of what the method trains; the
#: head beside it has --head-rate.
RATES: dict[str, tuple[float, ...]] = {
    "mask_tuning": (4e-3, 8e-3, 1.6e-2),
    "full": (2e-3, 4e-3, 8e-3),
    "lora": (3e-3, 1e-2, 2e-2),
    "head_only": (5e-3, 1e-2, 3e-2),
}
RESULTS = Path(__file__).parent / "results"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("encoders", nargs="*", default=["tiny"], metavar="ENCODER")
    add("--methods", nargs="*", default=list(RATES), metavar="METHOD")
    add("--probes", nargs="*", default=list(PROBES), metavar="PROBE")
    add("--sparsity", type=float, default=0.5)
    add("--targets", default="all", help="of masks and of LoRA")
    add(
        "--rates",
        nargs="*",
        default=[],
        metavar="METHOD=RATE,RATE",
        help="other learning rates to choose from",
    )
    add_options(parser, list(TASKS), [2.0, 10.0])
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    check_options(options)
    for names, known, what in (
        (options.methods, RATES, "method"),
        (options.probes, PROBES, "probe"),
    ):
        for name in names:
            one_of(name, known, what)
    if options.output and len(options.encoders) > 1:
        raise SettingError("--output is of one encoder; leave it out")


def _rates(options: argparse.Namespace) -> dict[str, tuple[float, ...]]:
    rates = dict(RATES)
    for entry in options.rates:
        method, _, values = entry.partition("=")
        one_of(method, RATES, "method")
        try:
            rates[method] = tuple(float(value) for value in values.split(","))
        except ValueError:
            raise SettingError(
                f"--rates {entry}: expected as in full=1e-4,1e-3"
            ) from None
    if options.quick:
        rates = {method: values[:2] for method, values in rates.items()}
    counts = {len(rates[method]) for method in options.methods}
    if len(counts) > 1:
        raise SettingError(
            "every method must have the same number of --rates to choose "
            "from, or the comparison is not fair"
        )
    return rates


def _cells(options: argparse.Namespace, place: Place) -> list[Cell]:
    rates = _rates(options)
    masks = {"targets": options.targets, "sparsity": options.sparsity}
    settings = {"mask_tuning": masks, "lora": {"targets": options.targets}}
    return [
        Cell(
            place,
            {
                **base,
                "method": method,
                "settings": settings.get(method, {}),
            },
            rates[method],
            tuple(range(options.seeds)),
        )
        for base in base_trials(options)
        for method in options.methods
    ]


def names_of(encoders: Sequence[str]) -> dict[str, str]:
    """Return a short name for each encoder, no two alike.

    Example
    -------
    >>> names_of(["tiny", "runs/a/encoder", "runs/b/encoder"])
    {'tiny': 'tiny', 'runs/a/encoder': 'a_encoder', \
'runs/b/encoder': 'b_encoder'}
    """
    if len(set(encoders)) < len(encoders):
        raise SettingError("an encoder is named twice; once is enough")
    for depth in range(1, 20):
        names = {
            e: "_".join(p for p in Path(e).parts[-depth:] if p != "/")
            for e in encoders
        }
        last = {e: Path(e).name for e in encoders}
        alone = {e for e in names if list(last.values()).count(last[e]) == 1}
        names.update({e: last[e] for e in alone})
        if len(set(names.values())) == len(names):
            return names
    raise SettingError("two of the encoders have the same name")


@exit_on_error
def main(arguments: list[str]) -> None:
    """Measure the encoders; print and write the results."""
    options = _arguments(arguments)
    _check(options)
    data, names = shared_data(), names_of(options.encoders)
    limit = dev_and_test_limit(options)
    sizes = ProbeSizes(40, 1.0, (20, 50)) if options.quick else ProbeSizes()
    places = {
        encoder: Place(
            encoder, str(data), str(options.work), options.device, limit
        )
        for encoder in names
    }
    about = {
        encoder: workbench(place).about() for encoder, place in places.items()
    }
    cells = {e: _cells(options, place) for e, place in places.items()}
    probes = [(p, n, sizes) for p in places.values() for n in options.probes]
    every = [cell for own in cells.values() for cell in own]
    found = run_jobs(every, probes, options.jobs)
    config = {k: v for k, v in vars(options).items() if k != "encoders"}
    for encoder, name in names.items():
        path = options.output or RESULTS / f"encoder_{name}.json"
        own = [
            {k: v for k, v in probe.items() if k != "encoder"}
            for probe in found
            if probe["encoder"] == encoder
        ]
        metrics = write_report(
            path, config, about[encoder], cells[encoder], own
        )
        print_report(
            f"{name}, {about[encoder]['parameters']:,} weights", metrics
        )
        print(f"\nwritten: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
