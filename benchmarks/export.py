"""Size, memory and speed of every kind of bundle, beside the dense export.

    python benchmarks/export.py                              # wav2vec2-base
    python benchmarks/export.py --shape=small --seconds 1    # for a look
    python benchmarks/export.py --only shared int8 --work=runs/export

Random weights and masks. Each bundle is made by `s3router export`, which
verifies it, and measured as `export/benchmark.py` does, in turns with the dense
fp32 export of the same encoder. What this version cannot export gives a row
that says why. Prints what exports must reach and whether they do. Must not be
imported.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from export_bars import compare_bars
from export_variants import (
    SHAPES,
    VARIANTS,
    VOCABULARY,
    NotAvailable,
    Variant,
    make_encoder,
    make_variant,
    run_command,
)

from s3router.errors import S3RouterError
from s3router.evaluation.export_rows import (
    BAR_COLUMNS,
    EXPORT_COLUMNS,
    bar_rows,
    export_rows,
)
from s3router.evaluation.results import read_result, write_result
from s3router.evaluation.table_format import format_table
from s3router.export.dense import DENSE, make_dense_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.benchmark import Device, Subject
from s3router.runtime.benchmark_report import (
    describe_sizes,
    measure_modes,
    measure_row,
)

GPUS = (Device("CUDA", "cuda"), Device("TensorRT", "tensorrt"))
RATE = 16000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="wav2vec2-base")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", nargs="+", type=float, default=[5, 15])
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, _cores()})
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--work",
        type=Path,
        help="keep encoder and bundles here, and take those that are there",
    )
    parser.add_argument("--output", type=Path, help="the JSON")
    return parser.parse_args()


def _measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return sizes of the dense export, and a row for each variant and mode."""
    encoder = make_encoder(options.shape, work / "encoder")
    if not (work / DENSE).exists():
        make_dense_bundle(str(encoder), work / DENSE, VOCABULARY)
    dense = describe_sizes(Bundle.load(work / DENSE))
    clips = _clips(options.seconds, work)
    rows = []
    for variant in VARIANTS:
        if variant.name in options.only:
            rows += _rows(variant, encoder, work, clips, options, dense)
    return {"dense": dense, "rows": rows}


def _rows(
    variant: Variant,
    encoder: Path,
    work: Path,
    clips: dict[str, tuple[str, float]],
    options: argparse.Namespace,
    dense: dict[str, Any],
) -> list[dict[str, Any]]:
    """Make and measure one variant in all its modes."""
    about = {
        "variant": variant.name,
        "masks": variant.masks,
        "sparsity": variant.sparsity,
    }
    print(f"{variant.name}: exporting", flush=True)
    try:
        bundle = make_variant(variant, encoder, work / variant.name)
    except NotAvailable as error:
        print(f"{variant.name}: not available: {error}", flush=True)
        row = {"mode": "fold", "why_not": str(error), "devices": {}}
        return [{**about, **row}]
    about |= _sizes(bundle, variant, dense)
    about["transport"] = _transport(bundle, variant.languages[-1])
    if not variant.modes:
        return [{**about, "mode": None, "why_not": None, "devices": {}}]
    switching = {
        row["mode"]: row
        for row in measure_modes(bundle, variant.languages[0], variant.modes)
    }
    rows = []
    for mode in variant.modes:
        print(f"{variant.name}: {mode}", flush=True)
        row = measure_row(
            Subject(str(bundle), variant.languages[0], mode),
            clips,
            [_threads(count) for count in options.threads] + [*GPUS],
            Subject(str(work / DENSE), DENSE),
            options.rounds,
            options.repeats,
        )
        rows.append({**about, **row, "switching": switching[mode]})
    return rows


def _sizes(
    folder: Path, variant: Variant, dense: dict[str, Any]
) -> dict[str, Any]:
    """Return the bytes of a bundle, of a language, and of what is shared."""
    bundle = Bundle.load(folder)
    sizes = describe_sizes(bundle)
    language = variant.languages[0]
    head = Subnetwork.load(folder.parent / language).head
    shared = sizes["bytes"] - sum(sizes["languages"].values())
    return {
        "bytes": sizes["bytes"],
        "own_bytes": sizes["languages"][language],
        "shared_bytes": shared,
        "head_bytes": sum(array.nbytes for array in head.values()),
        "of_dense": sizes["bytes"] / dense["bytes"],
        "shared_of_dense": shared / dense["bytes"],
        "parity": bundle.parity,
    }


def _transport(bundle: Path, language: str) -> dict[str, Any]:
    """Return what `s3router pack` says of a language, or why it does not."""
    packed = bundle.with_suffix(".s3r")
    try:
        told = run_command("pack", bundle, f"--output={packed}", "--json")
    except NotAvailable as error:
        return {"why_not": str(error)}
    return {"why_not": None, **json.loads(told)["languages"][language]}


def _clips(lengths: list[float], work: Path) -> dict[str, tuple[str, float]]:
    noise, clips = np.random.default_rng(0).standard_normal, {}
    for seconds in lengths:
        path = work / f"noise_{seconds:g}.npy"
        np.save(path, noise(round(seconds * RATE), np.float32) / 10)
        clips[f"{seconds:g} s"] = (str(path), seconds)
    return clips


def _threads(count: int) -> Device:
    return Device(f"{count} thread" + "s" * (count > 1), "cpu", count)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(options: argparse.Namespace, work: Path) -> None:
    measured = _measure(options, work)
    bars = compare_bars(measured["rows"], options.shape)
    default = Path(__file__).parent / "results" / f"export_{options.shape}.json"
    path = write_result(
        options.output or default,
        config={
            name: value
            for name, value in vars(options).items()
            if name not in ("work", "output")
        },
        seed=0,
        metrics={**measured, "bars": bars},
        extra={"benchmark": "export", "shape": options.shape},
    )
    results = [read_result(path)]
    print("\n" + format_table(export_rows(results), EXPORT_COLUMNS))
    print("\n" + format_table(bar_rows(results), BAR_COLUMNS))
    print(f"\nwritten: {path}")


def main() -> None:
    """Measure, print tables, write the JSON."""
    options = _arguments()
    try:
        if options.work:
            options.work.mkdir(parents=True, exist_ok=True)
            _run(options, options.work)
        else:
            with tempfile.TemporaryDirectory() as work:
                _run(options, Path(work))
    except S3RouterError as error:
        raise SystemExit(f"export: error: {error}") from error


if __name__ == "__main__":
    main()
