"""Bytes of masks as `s3router pack` sends them, beside entropy and LoRA.

    python benchmarks/transport.py
    python benchmarks/transport.py --layers 12 --languages 1 4

Masks over all linear layers of a wav2vec2-base: random ones, ones that are
shared between languages but for a part, and ones that mostly remove what is
small. Weights are random. `--layers` transformer layers are coded, and the
numbers multiplied up to twelve. Expected: at 10 % sparsity at most 1.03 of the
entropy bound, and below it where languages overlap. Must not be imported.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import zstandard
from measure import machine, write

from s3router.formats.mask_code import magnitude_mask, read_mask
from s3router.formats.pack_file import PackWriter
from s3router.formats.pack_masks import MAGNITUDE, NONE, Coded, code_layer
from s3router.formats.pack_report import LORA_RANK

#: Of one transformer layer, and how many there are.
SHAPES = ((768, 768),) * 4 + ((768, 3072),) * 2
DEPTH = 12
BAR = 1.03

Masks = list[np.ndarray]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--sparsity", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    add("--languages", type=int, nargs="+", default=[1, 2, 4, 8])
    add("--shared", type=float, default=0.95, help="of what is removed")
    add("--layers", type=int, default=1)
    add("--output", type=Path, default=None)
    return parser.parse_args()


def _overlapping(
    rng: np.random.Generator,
    weight: np.ndarray,
    sparsity: float,
    languages: int,
    shared: float,
) -> Masks:
    """Return masks that remove the same, but for a part."""
    order = rng.permutation(weight.size)
    removed = round(sparsity * weight.size)
    common = round(shared * removed) if languages > 1 else 0
    masks = []
    for _ in range(languages):
        own = rng.choice(order[common:], removed - common, replace=False)
        mask = np.ones(weight.size, np.bool_)
        mask[order[:common]] = mask[own] = False
        masks.append(mask)
    return masks


def _near_magnitude(
    rng: np.random.Generator, weight: np.ndarray, sparsity: float
) -> Masks:
    """Return a mask by magnitude, seen through a little noise."""
    noise = np.exp(0.1 * rng.standard_normal(weight.size))
    seen = (np.abs(weight) * noise).astype(np.float32)
    return [magnitude_mask(seen, round((1 - sparsity) * weight.size))]


def _unpacked(coded: dict[str | None, Coded], weight: np.ndarray) -> Iterator:
    """Yield graphs and their masks, as an installation makes them."""
    inflate, middle = zstandard.ZstdDecompressor().decompress, None
    for graph in sorted(coded, key=lambda graph: (graph is not None, graph)):
        one = coded[graph]
        reference = None if one.reference == NONE else middle
        if one.reference == MAGNITUDE:
            reference = magnitude_mask(weight, one.kept)
        streams = [
            (s.coding, inflate(s.payload) if s.payload else b"")
            for s in one.streams
        ]
        mask = read_mask(streams, weight.size, reference)
        middle = mask if graph is None else middle
        yield graph, mask


def _measure(make: Callable[..., Masks], layers: int) -> dict[str, object]:
    """Return bytes and seconds of one kind of masks, of all layers."""
    rng, writer = np.random.default_rng(0), PackWriter(io.BytesIO())
    totals = dict.fromkeys(
        ("sent", "bound", "bits", "lora", "pack_seconds", "install_seconds"),
        0.0,
    )
    for shape in SHAPES * layers:
        weight = 0.05 * rng.standard_normal(np.prod(shape), np.float32)
        masks = {str(i): mask for i, mask in enumerate(make(rng, weight))}
        start = time.process_time()
        coded = code_layer(masks, weight, writer)
        half = time.process_time()
        back = dict(_unpacked(coded, weight))
        totals["pack_seconds"] += half - start
        totals["install_seconds"] += time.process_time() - half
        if any((back[name] != mask).any() for name, mask in masks.items()):
            raise SystemExit("transport: a mask came back as another one")
        totals["sent"] += sum(one.bytes for one in coded.values())
        totals["bound"] += sum(coded[name].bound for name in masks)
        totals["bits"] += len(masks) * weight.size / 8
        totals["lora"] += len(masks) * LORA_RANK * sum(shape) * 2
    numbers = {k: round(v * DEPTH / layers, 3) for k, v in totals.items()}
    return {**numbers, "of_bound": round(totals["sent"] / totals["bound"], 4)}


def main() -> None:
    """Measure, print a table, write the JSON."""
    options = _arguments()
    rows = {}
    for sparsity in options.sparsity:
        kinds: dict[str, Callable[..., Masks]] = {
            f"{count} language(s)": partial(
                _overlapping, languages=count, shared=options.shared
            )
            for count in options.languages
        }
        kinds["near magnitude"] = _near_magnitude
        for name, make in kinds.items():
            rows[f"{sparsity:.0%}, {name}"] = _measure(
                partial(make, sparsity=sparsity), options.layers
            )
    head = (
        "MB sent",
        "n*H(d)",
        "of bound",
        "bits",
        "LoRA",
        "pack s",
        "inst. s",
    )
    print(f"{'':>20}", *(f"{name:>9}" for name in head))
    for name, row in rows.items():
        sizes = [row[key] / 1e6 for key in ("sent", "bound", "bits", "lora")]
        cells = [*sizes[:2], row["of_bound"], *sizes[2:]]
        cells += [row["pack_seconds"], row["install_seconds"]]
        print(f"{name:>20}", *(f"{cell:9.3f}" for cell in cells))
    reached = rows.get("10%, 1 language(s)", {}).get("of_bound")
    result = {
        "benchmark": "transport",
        "shared": options.shared,
        "layers": options.layers,
        "machine": machine("cpu"),
        "masks": rows,
        "bar": {"of_bound": BAR, "reached": reached and reached <= BAR},
    }
    default = Path(__file__).parent / "results" / "transport.json"
    write(options.output or default, result)


if __name__ == "__main__":
    main()
