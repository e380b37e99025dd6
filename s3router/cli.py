"""The command `s3router`: compare, export, pack, transcribe, info, ...

Each subcommand imports what it needs when it runs, so that help comes at once
and nothing that a device runs imports torch.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from s3router import __version__
from s3router.comparison.command import add_compare
from s3router.errors import S3RouterError
from s3router.export.command import add_export
from s3router.formats.pack_command import add_install, add_pack

if TYPE_CHECKING:
    from s3router.runtime.recognizer import Recognizer

SOME_FAILED = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Arguments
    ---------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process, if not
        given.

    Returns
    -------
    int
        Exit code: 0; 1 if some of the files failed; 2 for an error, which is
        one line on stderr; 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    if argv is None:
        # File names need not be valid text, and terminals not know Chinese.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except S3RouterError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("s3router: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has had enough, as `head` has. Python would complain
        # once more while it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        # No permission, disk full: nothing that a traceback would explain.
        _complain(error)
        return S3RouterError.exit_code


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="s3router",
        description="Find, export and run subnetworks of speech encoders.",
    )
    version = f"s3router {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        add_compare,
        add_export,
        add_pack,
        add_install,
        _add_transcribe,
        _add_info,
        _add_quickstart,
    ):
        add(commands)
    return parser


def _add_transcribe(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "transcribe",
        help="recognise speech with a bundle",
        description="Print one line for each file: its path, a tab, the text; "
        "or the label, where the language is a task that classifies.",
    )
    command.add_argument("bundle", metavar="BUNDLE")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument(
        "--language",
        "-l",
        metavar="CODE",
        help="as in the bundle, or its beginning where that is clear: zh for "
        "zh-CN; not needed if the bundle has one",
    )
    command.add_argument(
        "--json", action="store_true", help="one JSON object for each file"
    )
    command.add_argument(
        "--providers",
        metavar="LIST",
        help="cpu, cuda or tensorrt, several with commas; CUDA where it is "
        "usable, else CPU, if not given",
    )
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    command.add_argument(
        "--chunk-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="cut longer recordings at quiet places into pieces of at most "
        "this length (default: 30)",
    )
    command.add_argument(
        "--mode",
        default="fold",
        metavar="MODE",
        help="fold: full speed, weights in memory (default); lean: weights "
        "stay in their file; switch: weights in memory once, masked anew when "
        "the language changes (both: layout shared)",
    )
    command.add_argument(
        "--quiet", "-q", action="store_true", help="no summary on stderr"
    )
    command.set_defaults(run=_transcribe)


def _transcribe(arguments: argparse.Namespace) -> int:
    from s3router.runtime.recognizer import Recognizer

    recognizer = Recognizer(
        arguments.bundle,
        arguments.language,
        arguments.providers,
        arguments.threads,
        arguments.chunk_seconds,
        arguments.mode,
    )
    done = []
    for path in arguments.files:
        try:
            if recognizer.task == "classification":
                transcript = recognizer.classify(path)
            else:
                transcript = recognizer.transcribe(path)
        except (S3RouterError, OSError) as error:
            # The other files are still worth transcribing.
            _complain(error)
            continue
        done.append(transcript)
        text = getattr(transcript, "label", None) or transcript.text
        line = f"{path}\t{text}"
        if arguments.json:
            entry = {"path": path, **transcript.as_dict()}
            line = json.dumps(entry, ensure_ascii=False)
        print(line, flush=True)
    if not arguments.quiet:
        _summarise(recognizer, done, len(arguments.files))
    return 0 if len(done) == len(arguments.files) else SOME_FAILED


def _summarise(recognizer: "Recognizer", done: list, wanted: int) -> None:
    """Print on stderr how much was recognised, how fast and on what."""
    audio = sum(transcript.duration for transcript in done)
    work = sum(transcript.seconds for transcript in done)
    factor = f", real-time factor {work / audio:.3f}" if audio else ""
    print(
        f"{len(done)} of {wanted} files, {audio:.1f} s of "
        f"{recognizer.language} in {work:.1f} s{factor}, on "
        f"{recognizer.provider}",
        file=sys.stderr,
    )


def _add_info(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "info",
        help="say what a subnetwork, bundle or encoder folder is",
        description="Say what a folder is: languages, sparsity of each layer, "
        "sizes, fingerprint, versions.",
    )
    command.add_argument("path", metavar="PATH", help="a folder, or 'tiny'")
    command.add_argument("--json", action="store_true", help="all, as JSON")
    command.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    from s3router.formats.describe import describe, format_description

    info = describe(arguments.path)
    if arguments.json:
        print(json.dumps(info, indent=2, ensure_ascii=False))
    else:
        print(format_description(info))
    return 0


def _add_quickstart(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "quickstart",
        help="the whole chain on synthetic speech, in minutes",
        description="Make synthetic speech in three languages, find a "
        "subnetwork for each, export, transcribe, compare. Resumes what is "
        "finished. Run it from a checkout.",
    )
    command.add_argument(
        "--folder",
        default="quickstart",
        metavar="DIR",
        help="where everything is written (default: quickstart)",
    )
    command.add_argument("--clean", action="store_true", help="start over")
    command.set_defaults(run=_quickstart)


def _quickstart(arguments: argparse.Namespace) -> int:
    from s3router.quickstart.main import quickstart

    quickstart(arguments.folder, arguments.clean)
    return 0


def _complain(error: Exception) -> None:
    """Print an error as one line on stderr."""
    text = " ".join(str(error).split())
    print(f"s3router: error: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
