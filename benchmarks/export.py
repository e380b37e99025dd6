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
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from s3router.evaluation.provenance import git_commit
from s3router.evaluation.results import read_result, write_result
from s3router.evaluation.table_format import format_table
from s3router.export.dense import DENSE, make_dense_bundle
from s3router.formats.bundle import MANIFEST, Bundle
from s3router.formats.files import read_json, write_json
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.benchmark import (
    Subject,
    all_devices,
    noise_clips,
    usual_threads,
    write_clips,
)
from s3router.runtime.benchmark_report import (
    describe_sizes,
    measure_modes,
    measure_row,
)

RATE = 16000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="wav2vec2-base")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", nargs="+", type=float, default=[5, 15])
    parser.add_argument(
        "--threads", nargs="+", type=int, default=usual_threads()
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--work",
        type=Path,
        help="keep all here, and go on where a stopped command was",
    )
    parser.add_argument("--output", type=Path, help="the JSON")
    return parser.parse_args()


class _Bench:
    """Makes and measures variants, and keeps in a folder what is done."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        work = work / options.shape
        # Bundles and times of another version are not this one's.
        self.work = work / (git_commit() or "unknown")[:12]
        self.work.mkdir(parents=True, exist_ok=True)
        self.encoder = make_encoder(options.shape, work / "encoder")
        if not (self.work / DENSE / MANIFEST).exists():
            shutil.rmtree(self.work / DENSE, ignore_errors=True)
            make_dense_bundle(str(self.encoder), self.work / DENSE, VOCABULARY)
        self.dense = describe_sizes(Bundle.load(self.work / DENSE))
        clips = noise_clips(options.seconds, RATE)
        self.clips = write_clips(clips, RATE, self.work)
        self.devices = all_devices(options.threads)
        self.rounds, self.repeats = options.rounds, options.repeats

    def rows(self, variant: Variant) -> list[dict[str, Any]]:
        """Return a row for each mode of a variant."""
        kept = self.work / variant.name / "rows.json"
        devices = [device.name for device in self.devices]
        settings = [list(self.clips), devices, self.rounds, self.repeats]
        if kept.exists() and (found := read_json(kept))["of"] == settings:
            return found["rows"]
        print(f"{variant.name}: exporting", flush=True)
        try:
            bundle = make_variant(
                variant, self.encoder, self.work / variant.name
            )
        except NotAvailable as error:
            print(f"{variant.name}: not available: {error}", flush=True)
            row = {"mode": "fold", "why_not": str(error), "devices": {}}
            return [{**_describe(variant), **row}]
        rows = list(self._measure(variant, bundle))
        write_json(kept, {"of": settings, "rows": rows})
        return rows

    def _measure(
        self, variant: Variant, bundle: Path
    ) -> Iterator[dict[str, Any]]:
        about = _describe(variant) | _sizes(bundle, variant, self.dense)
        about["transport"] = _transport(bundle, variant.languages[-1])
        if not variant.modes:
            yield {**about, "mode": None, "why_not": None, "devices": {}}
        language = variant.languages[0]
        changes = measure_modes(str(bundle), language, variant.modes)
        for mode, switching in zip(variant.modes, changes, strict=True):
            print(f"{variant.name}: {mode}", flush=True)
            row = measure_row(
                Subject(str(bundle), language, mode),
                self.clips,
                self.devices,
                Subject(str(self.work / DENSE), DENSE),
                self.rounds,
                self.repeats,
            )
            yield {**about, **row, "switching": switching}


def _describe(variant: Variant) -> dict[str, Any]:
    return {
        "variant": variant.name,
        "masks": variant.masks,
        "sparsity": variant.sparsity,
    }


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
    """Return what `s3router pack` says of a language, or why it does not.

    Beside the bound stand the masks of all languages, and what they share: to
    which of them that belongs is arbitrary.
    """
    packed = bundle.with_suffix(".s3r")
    try:
        told = run_command("pack", bundle, f"--output={packed}", "--json")
    except NotAvailable as error:
        return {"why_not": str(error)}
    numbers = json.loads(told)
    every = numbers["languages"].values()
    sent = sum(each["masks"] for each in every) + numbers["consensus"]
    bound = sum(each["bound"] for each in every)
    return {
        "why_not": None,
        **numbers["languages"][language],
        "of_bound": sent / bound if bound else None,
    }


def _run(options: argparse.Namespace, work: Path) -> None:
    bench = _Bench(options, work)
    wanted = [each for each in VARIANTS if each.name in options.only]
    rows = [row for variant in wanted for row in bench.rows(variant)]
    default = Path(__file__).parent / "results" / f"export_{options.shape}.json"
    path = write_result(
        options.output or default,
        config={
            name: value
            for name, value in vars(options).items()
            if name not in ("work", "output")
        },
        seed=0,
        metrics={
            "dense": bench.dense,
            "rows": rows,
            "bars": compare_bars(rows, options.shape),
        },
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
