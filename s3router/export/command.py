"""Arguments of `s3router export`; imports what it needs when it runs."""

import argparse
import json
import sys


def add_export(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand to a parser's.

    Arguments
    ---------
    commands : argparse._SubParsersAction
        Of the program.
    """
    command = commands.add_parser(
        "export",
        help="make a bundle for onnxruntime from subnetworks",
        description="Export subnetworks of one encoder to ONNX, verify them "
        "against torch, and write a bundle.",
    )
    command.add_argument("subnetworks", nargs="+", metavar="SUBNETWORK")
    command.add_argument("--output", required=True, metavar="BUNDLE")
    command.add_argument(
        "--encoder",
        metavar="SRC",
        help="folder, hub name, fairseq .pt or 'tiny'; where the subnetworks "
        "say, if not given",
    )
    command.add_argument(
        "--audio",
        nargs="+",
        default=[],
        metavar="FILE",
        help="real speech to verify with, besides built-in signals",
    )
    _add_forms(command)
    command.add_argument(
        "--transcripts",
        nargs="+",
        default=[],
        metavar="CSV",
        help="real speech and what is said in it (columns wav, language, and "
        "wrd or text), to tell what the precision does to error rates",
    )
    command.add_argument("--json", action="store_true", help="report as JSON")
    command.set_defaults(run=_export)


def _add_forms(command: argparse.ArgumentParser) -> None:
    """Add the options that say what a bundle is like."""
    command.add_argument(
        "--layout",
        metavar="LAYOUT",
        help="shared: one file of weights, a mask for each language; "
        "standalone: all weights for each; shared where that is possible, if "
        "not given",
    )
    command.add_argument(
        "--precision",
        default="fp32",
        metavar="PRECISION",
        help="fp32; fp16: half the size, computed as fp32; int8: a third of "
        "the size, and faster",
    )
    command.add_argument(
        "--profile",
        default="s3router",
        metavar="PROFILE",
        help="sherpa-onnx or onnx-asr: graphs and files that these run as "
        "they are; s3router reads them too (default: s3router)",
    )
    command.add_argument(
        "--encoding",
        default="auto",
        metavar="NAME",
        help="how layout standalone stores weights with many zeros: dense, "
        "gaps, bits, sparse, or auto, the smallest for each, but dense for "
        "pattern n:m (default)",
    )


def _export(arguments: argparse.Namespace) -> int:
    from s3router.export.accuracy import tell_change
    from s3router.export.bundle import make_bundle
    from s3router.runtime.audio import read_audio

    report = make_bundle(
        arguments.subnetworks,
        arguments.output,
        arguments.encoder,
        arguments.layout,
        arguments.precision,
        wavs=[read_audio(path) for path in arguments.audio],
        encoding=arguments.encoding,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        transcripts=arguments.transcripts,
        profile=arguments.profile,
    )
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print(
            f"{arguments.output}: {len(report['languages'])} language(s), "
            f"layout {report['layout']}, {report['precision']}, "
            f"{report['bytes'] / 1e6:.1f} MB, verified, in "
            f"{report['seconds']:.1f} s"
        )
        for code, language in report["languages"].items():
            if language["change"]:
                print(f"{code}: {tell_change(language['change'])}")
    return 0
