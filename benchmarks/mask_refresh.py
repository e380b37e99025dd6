"""Time to make one mask anew, as ratios against sort, kthvalue and topk.

    python benchmarks/mask_refresh.py
    python benchmarks/mask_refresh.py --device=cuda --repeats=50

All in one run, one after the other in each repeat, so that what else the
machine does falls on all alike. Ours includes all of the work: |score|, the
threshold, the comparison, the count of flips and the write into the mask.
Expected on one CPU thread: a 768x3072 matrix in at most 1/6 of the time of
`torch.kthvalue`. Must not be imported.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from measure import machine, pick_device, seconds, summary, write
from torch import Tensor

from s3router.masks.rules import Pattern
from s3router.masks.select import Pool, Workspace, select, select_n_of_m

SHAPES = ((768, 768), (768, 3072), (1024, 4096))
#: Done in a row in each timing, as a router does.
MATRICES = 8
BAR = 1 / 6


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sparsity", type=float, default=0.1)
    parser.add_argument("--output", type=Path, default=None)
    return parser.parse_args()


def _ways(
    matrices: list[Tensor], sparsity: float
) -> dict[str, Callable[[], object]]:
    """Return each way of making the masks of these scores."""
    total = matrices[0].numel()
    removed = round(sparsity * total)
    pools = [
        Pool(["w"], [each], [torch.ones_like(each, dtype=torch.bool)], removed)
        for each in matrices
    ]
    pattern = Pattern.parse("2:4")
    space = Workspace()

    def sort(flat: Tensor) -> Tensor:
        made = torch.ones_like(flat)
        made[flat.sort().indices[:removed]] = 0
        return made

    def each(work: Callable[[Tensor], object]) -> Callable[[], object]:
        return lambda: [work(matrix.abs().flatten()) for matrix in matrices]

    return {
        "ours": lambda: select(pools, space),
        "ours_2:4": lambda: select_n_of_m(pools, pattern, space),
        "kthvalue": each(lambda flat: torch.kthvalue(flat, removed)),
        "topk": each(lambda flat: flat.topk(removed, largest=False)),
        "sort": each(sort),
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    options = _arguments()
    device = pick_device(options.device)
    rows = {}
    for shape in SHAPES:
        matrices = [torch.empty(shape, device=device) for _ in range(MATRICES)]
        ways = _ways(matrices, options.sparsity)
        times: dict[str, list[float]] = {name: [] for name in ways}
        generator = torch.Generator().manual_seed(0)
        for repeat in range(options.repeats + 1):
            # New ones each time, and means, not medians: kthvalue takes from
            # a third to twice its mean time, by luck with its pivots.
            for matrix in matrices:
                drawn = torch.empty(shape).uniform_(-1, 1, generator=generator)
                matrix.copy_(drawn)
            for name, way in ways.items():
                spent = seconds(way, device) / MATRICES
                if repeat:  # the first one warms up
                    times[name].append(spent)
        rows["x".join(map(str, shape))] = {
            name: summary(values) for name, values in times.items()
        }
    print(f"{'':>10} {'way':>10} {'ms':>9} {'of kthvalue':>12}")
    for shape, row in rows.items():
        base = row["kthvalue"]["mean"]
        for name, one in row.items():
            one["of_kthvalue"] = round(one["mean"] / base, 4)
            spent = one["mean"] * 1e3
            ratio = one["of_kthvalue"]
            print(f"{shape:>10} {name:>10} {spent:9.2f} {ratio:12.3f}")
    ratio = rows["768x3072"]["ours"]["of_kthvalue"]
    print(f"768x3072: {ratio:.3f} of kthvalue, bar {BAR:.3f}")
    result = {
        "benchmark": "mask_refresh",
        "sparsity": options.sparsity,
        "machine": machine(device),
        "seconds": rows,
        "bar": {"of_kthvalue": round(BAR, 4), "reached": ratio <= BAR},
    }
    default = Path(__file__).parent / "results" / f"mask_refresh_{device}.json"
    write(options.output or default, result)


if __name__ == "__main__":
    main()
