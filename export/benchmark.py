"""Measure a bundle: size, load time, memory, speed, change of language.

    python export/benchmark.py BUNDLE [--audio a.wav] [--modes fold lean switch]
    python export/benchmark.py BUNDLE --no-dense     # needs no torch

Each measurement is made in a fresh process, in turns with the dense fp32 export
of the same encoder, where that can be found.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from s3router.errors import MissingDependencyError, S3RouterError
from s3router.evaluation.provenance import (
    command_line,
    library_versions,
    machine,
)
from s3router.evaluation.results import shorten_paths
from s3router.evaluation.speed_tables import speed_text
from s3router.formats.bundle import Bundle
from s3router.formats.files import write_json
from s3router.formats.tokens_file import load_tokens
from s3router.runtime.audio import read_audio
from s3router.runtime.benchmark import (
    Subject,
    all_devices,
    noise_clips,
    usual_threads,
    write_clips,
)
from s3router.runtime.benchmark_report import benchmark_bundle, describe_sizes
from s3router.runtime.session import MODES


def main() -> int:
    """Run the command; return its exit code."""
    options = _arguments()
    try:
        with tempfile.TemporaryDirectory() as work:
            report = _measure(options, Path(work))
        print(speed_text(report))
        if options.json:
            write_json(options.json, report)
    except S3RouterError as error:
        print(f"benchmark: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument(
        "--audio", nargs="+", default=[], metavar="FILE", help="run these"
    )
    parser.add_argument(
        "--seconds",
        nargs="+",
        type=float,
        default=[5.0, 15.0],
        help="lengths of noise to run, where no audio is given",
    )
    parser.add_argument("--languages", nargs="+", default=[])
    parser.add_argument("--modes", nargs="+", default=MODES)
    parser.add_argument(
        "--threads",
        nargs="+",
        type=int,
        default=usual_threads(),
        help="of the CPU; one, and as many as there are, if not given",
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="fresh processes of each"
    )
    parser.add_argument(
        "--repeats", type=int, default=2, help="runs in each process"
    )
    parser.add_argument(
        "--encoder", metavar="SRC", help="if it is not where it was"
    )
    parser.add_argument(
        "--no-dense",
        action="store_true",
        help="compare with nothing; needs no torch",
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    return parser.parse_args()


def _measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return the report of the command."""
    bundle = Bundle.load(options.bundle)
    dense, about = None, None
    if not options.no_dense:
        dense, about = _dense(bundle, options.encoder, work / "dense")
    report = benchmark_bundle(
        options.bundle,
        _clips(options, bundle.sample_rate, work),
        all_devices(options.threads),
        options.languages,
        options.modes,
        dense,
        options.rounds,
        options.repeats,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return {
        **report,
        "dense": about,
        "versions": library_versions(),
        "machine": machine(),
        "command": shorten_paths(command_line()),
    }


def _dense(
    bundle: Bundle, encoder: str | None, folder: Path
) -> tuple[Subject | None, dict[str, Any]]:
    """Export the bundle's encoder without masks, and say how large it is.

    Where nobody named the encoder and it is not there, say why instead.
    """
    entry = next(iter(bundle.languages.values()))
    try:
        vocabulary = len(load_tokens(bundle.path(entry.tokens)))
        return _export(encoder or bundle.encoder["name"], folder, vocabulary)
    except S3RouterError as error:
        if encoder:
            raise
        return None, {"why_not": str(error)}


def _export(
    encoder: str, folder: Path, vocabulary: int
) -> tuple[Subject, dict[str, Any]]:
    try:
        # Only this needs torch.
        from s3router.export.dense import DENSE, make_dense_bundle
    except ImportError as error:
        raise MissingDependencyError(
            f"the dense export needs what s3router export needs ({error}): "
            "pip install 's3router[train]', or --no-dense"
        ) from error
    made = make_dense_bundle(encoder, folder, vocabulary)
    about = {"why_not": None, **describe_sizes(made)}
    return Subject(str(folder), DENSE), about


def _clips(
    options: argparse.Namespace, rate: int, work: Path
) -> dict[str, tuple[str, float]]:
    """Write what is to be run as arrays; return paths and seconds by name."""
    if not options.audio:
        return write_clips(noise_clips(options.seconds, rate), rate, work)
    paths = dict.fromkeys(options.audio)
    names = Counter(Path(path).name for path in paths)
    clips = {
        # Files of one name in several folders keep their folders.
        Path(path).name if names[Path(path).name] == 1 else path: read_audio(
            path, rate
        )
        for path in paths
    }
    return write_clips(clips, rate, work)


if __name__ == "__main__":
    sys.exit(main())
