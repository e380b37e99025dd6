"""What the commands that tune encoders have in common on the command line."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from encoder_data import TASKS

from s3router.errors import SettingError, one_of

#: Of --quick: enough to see that everything runs.
QUICK = {"steps": 20, "warm_steps": 50, "copies": 1}
QUICK_LIMIT = 24


def add_options(
    parser: argparse.ArgumentParser, tasks: list[str], minutes: list[float]
) -> None:
    """Add the options of trials.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Gets them.
    tasks, minutes : list
        Defaults.
    """
    add = parser.add_argument
    add("--tasks", nargs="*", default=tasks, metavar="TASK")
    add("--minutes", nargs="+", type=float, default=minutes)
    add("--seeds", type=int, default=3, help="how many, from 0")
    add("--steps", type=int, default=1000, help="of every trial")
    add("--head-rate", type=float, default=2e-3)
    add("--jobs", type=int, default=2, help="processes of one thread")
    add("--device", default="cpu")
    add("--work", type=Path, default=Path("results/bench/encoder"))
    add("--output", type=Path, help="JSON, of one encoder")
    add("--quick", action="store_true", help="a look, not a result")


def check_options(options: argparse.Namespace) -> None:
    """Raise SettingError where an option cannot be."""
    for name in options.tasks:
        one_of(name, TASKS, "task")
    if options.seeds < 1 or options.jobs < 1:
        raise SettingError("--seeds and --jobs must be 1 or more")
    if not all(minutes > 0 for minutes in options.minutes):
        raise SettingError("--minutes must be above 0")


def base_trials(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yield what all trials of a task with so many labels share.

    Arguments
    ---------
    options : argparse.Namespace
        Of `add_options`.

    Yields
    ------
    dict
        `task`, `minutes`, `steps`, `head_rate`, and what --quick changes.
    """
    for task in options.tasks:
        for minutes in TASKS[task].minutes(options.minutes):
            yield {
                "task": task,
                "minutes": minutes,
                "steps": options.steps,
                "head_rate": options.head_rate,
                **(QUICK if options.quick else {}),
            }


def dev_and_test_limit(options: argparse.Namespace) -> int | None:
    """Return how many dev and test clips are used at most; None: all."""
    return QUICK_LIMIT if options.quick else None
