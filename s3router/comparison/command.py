"""Arguments of `s3router compare`; imports what it needs when it runs."""

import argparse

from s3router.errors import SettingError


def add_compare(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand to a parser's.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        Of the program.
    """
    command = commands.add_parser(
        "compare",
        help="run methods side by side, and report",
        description="Run or resume what is missing of comparisons: search "
        "each method's settings on dev, run the best with every seed, and "
        "write tables and a plot.",
    )
    command.add_argument("comparisons", nargs="+", metavar="YAML")
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of all runs, as data_folder=/path/to/cv-corpus; also "
        "output_folder, and seeds as [1,2,3]",
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="--OPTION",
        help="of SpeechBrain, for all runs, as --option=--device=cpu",
    )
    command.add_argument("--jobs", type=int, default=1, help="at a time")
    command.add_argument(
        "--launcher",
        default="local",
        help="who runs them: local, ray or submitit",
    )
    command.add_argument(
        "--engine",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="for ray and submitit, as num_gpus=1 or gpus_per_node=1",
    )
    command.add_argument(
        "--print-commands",
        action="store_true",
        help="print what is missing, one command a run, and run nothing",
    )
    command.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from s3router.brains.hparams import parse_yaml
    from s3router.comparison.main import compare

    told: dict[str, dict[str, object]] = {"set": {}, "engine": {}}
    for option, settings in told.items():
        for entry in getattr(arguments, option):
            key, equals, value = entry.partition("=")
            if not equals:
                raise SettingError(f"--{option} {entry}: expected KEY=VALUE")
            settings |= parse_yaml(f"{key}: {value}", f"--{option} {entry}")
    failed = compare(
        arguments.comparisons,
        told["set"],
        arguments.option,
        arguments.jobs,
        arguments.launcher,
        told["engine"],
        arguments.print_commands,
    )
    return 1 if failed else 0
