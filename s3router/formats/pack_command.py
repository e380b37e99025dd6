"""Arguments of `s3router pack` and `s3router install`."""

import argparse
import json


def add_pack(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand `pack` to a parser's.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        Of the program.
    """
    command = commands.add_parser(
        "pack",
        help="put a bundle into one small file for sending",
        description="Put a bundle into one file, with masks in as few bytes "
        "as they can be; s3router install unpacks it.",
    )
    command.add_argument("bundle", metavar="BUNDLE")
    command.add_argument("--output", required=True, metavar="FILE.s3r")
    command.add_argument(
        "--without-backbone",
        action="store_true",
        help="leave out the weights that languages share, for those who have "
        "a bundle with them",
    )
    command.add_argument("--json", action="store_true", help="report as JSON")
    command.set_defaults(run=_pack)


def add_install(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand `install` to a parser's.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        Of the program.
    """
    command = commands.add_parser(
        "install",
        help="unpack a bundle that was sent",
        description="Unpack a file of s3router pack into a bundle folder, "
        "verified, whole or not at all.",
    )
    command.add_argument("packed", metavar="FILE.s3r")
    command.add_argument("--output", required=True, metavar="BUNDLE")
    command.add_argument(
        "--backbone",
        metavar="BUNDLE",
        help="a bundle that has the weights which were left out",
    )
    command.add_argument("--json", action="store_true", help="report as JSON")
    command.set_defaults(run=_install)


def _pack(arguments: argparse.Namespace) -> int:
    from s3router.formats.pack import pack
    from s3router.formats.pack_report import format_report

    numbers = pack(
        arguments.bundle, arguments.output, not arguments.without_backbone
    )
    if arguments.json:
        print(json.dumps(numbers, indent=2))
        return 0
    print(format_report(numbers))
    without = "".join(f", without {name}" for name in numbers["left_out"])
    print(
        f"{arguments.output}: {numbers['bytes'] / 1e6:.1f} MB for "
        f"{numbers['installed'] / 1e6:.1f} MB{without}"
    )
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from s3router.formats.install import install

    numbers = install(arguments.packed, arguments.output, arguments.backbone)
    if arguments.json:
        print(json.dumps(numbers, indent=2))
        return 0
    print(
        f"{arguments.output}: {', '.join(numbers['languages'])}, "
        f"{numbers['bytes'] / 1e6:.1f} MB, verified"
    )
    return 0
