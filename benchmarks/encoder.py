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

from encoder_data import FEW_MINUTES, TASKS, shared_data
from encoder_jobs import Cell, run_jobs
from encoder_probes import PROBES, ProbeSizes
from encoder_report import print_report, write_report
from encoder_workbench import Place, workbench

from s3router.brains.pretrain_snapshots import hours_heard
from s3router.errors import SettingError, exit_on_error, one_of
from s3router.evaluation.results import shorten_paths
from s3router.models.frame_grid import FrameGrid
from s3router.models.sources import locate

#: Peak learning rates that dev chooses from. Of what the method trains; the
#: head beside it has --head-rate.
RATES: dict[str, tuple[float, ...]] = {
    "mask_tuning": (3e-3, 1e-2, 2e-2),
    "full": (2e-3, 4e-3, 8e-3),
    "lora": (3e-3, 1e-2, 2e-2),
    "head_only": (5e-3, 1e-2, 3e-2),
}
RESULTS = Path(__file__).parent / "results"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("encoders", nargs="*", default=["tiny"], metavar="ENCODER")
    add("--tasks", nargs="*", default=list(TASKS), metavar="TASK")
    add("--methods", nargs="*", default=list(RATES), metavar="METHOD")
    add("--probes", nargs="*", default=list(PROBES), metavar="PROBE")
    add("--minutes", nargs="+", type=float, default=[2.0, 10.0])
    add("--seeds", type=int, default=3, help="how many, from 0")
    add("--steps", type=int, help="of every trial; else 500 or 1000")
    add("--sparsity", type=float, default=0.5)
    add("--targets", default="all", help="of masks and of LoRA")
    add(
        "--rates",
        nargs="*",
        default=[],
        metavar="METHOD=RATE,RATE",
        help="other learning rates to choose from",
    )
    add("--head-rate", type=float, default=2e-3)
    add("--jobs", type=int, default=2, help="processes of one thread")
    add("--device", default="cpu")
    add("--work", type=Path, default=Path("results/bench/encoder"))
    add("--output", type=Path, help="JSON, of one encoder")
    add("--quick", action="store_true", help="a look, not a result")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    for names, known, what in (
        (options.tasks, TASKS, "task"),
        (options.methods, RATES, "method"),
        (options.probes, PROBES, "probe"),
    ):
        for name in names:
            one_of(name, known, what)
    if options.seeds < 1 or options.jobs < 1:
        raise SettingError("--seeds and --jobs must be 1 or more")
    if not all(minutes > 0 for minutes in options.minutes):
        raise SettingError("--minutes must be above 0")
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
    cells = []
    for task in options.tasks:
        for minutes in TASKS[task].minutes(options.minutes):
            few = minutes is not None and minutes <= FEW_MINUTES
            steps = options.steps or (500 if few else 1000)
            for method in options.methods:
                base = {
                    "task": task,
                    "minutes": minutes,
                    "method": method,
                    "settings": settings.get(method, {}),
                    "steps": steps,
                    "head_rate": options.head_rate,
                }
                if options.quick:
                    base.update(steps=20, warm_steps=50, copies=1)
                seeds = tuple(range(options.seeds))
                cells.append(Cell(place, base, rates[method], seeds))
    return cells


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


def _about(place: Place) -> dict[str, object]:
    """Return what an encoder is; the first that fails if it is none."""
    bench = workbench(place)
    encoder = bench.encoder
    grid = FrameGrid.of(encoder.model.config)
    return {
        "name": shorten_paths(place.encoder),
        "family": encoder.family,
        "parameters": encoder.num_parameters,
        "layers": encoder.num_layers,
        "width": encoder.hidden_size,
        "frame_milliseconds": 1000 / grid.frames_per_second,
        "hours_seen": hours_heard(locate(place.encoder)),
        "fingerprint": encoder.fingerprint(),
        "key": bench.key,
    }


@exit_on_error
def main(arguments: list[str]) -> None:
    """Measure the encoders; print and write the results."""
    options = _arguments(arguments)
    _check(options)
    data, names = shared_data(), names_of(options.encoders)
    limit = 24 if options.quick else None
    sizes = ProbeSizes(40, 1.0, (20, 50)) if options.quick else ProbeSizes()
    places = {
        encoder: Place(
            encoder, str(data), str(options.work), options.device, limit
        )
        for encoder in names
    }
    about = {encoder: _about(place) for encoder, place in places.items()}
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
