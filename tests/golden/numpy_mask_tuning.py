"""Mask tuning in plain numpy: a restatement to compare the product with.

    python tests/golden/numpy_mask_tuning.py

writes `mask_tuning.json` beside it. Two masked linear layers with a ReLU
between them, mean squared error, Adam on the scores, selection by a stable
sort, weights by formula: nothing is shared with the product, and no random
number generator either. `KINDS` are the ways to select: a share of each
matrix or of both, 2 of each 4 inputs, what is above 0; and the same with the
sigmoid's slope.
"""

import json
from pathlib import Path

import numpy as np

SIZES = ((12, 8), (5, 12))
STEPS, RATE, SPARSITY = 12, 0.01, 0.3
KINDS = ("layer", "global", "2:4", "positive", "sigmoid")
PATH = Path(__file__).with_name("mask_tuning.json")


def wave(rows: int, columns: int, shift: float) -> np.ndarray:
    """Return values in (-1, 1) by formula, all different."""
    place = np.arange(rows * columns, dtype=np.float64)
    return np.sin(place * 12.9898 + shift).reshape(rows, columns)


def problem() -> dict[str, np.ndarray]:
    """Return weights, starting scores, inputs and targets."""
    made = {"x": wave(6, 8, 0.3), "y": wave(6, 5, 0.9)}
    for index, (rows, columns) in enumerate(SIZES):
        made[f"w{index}"] = wave(rows, columns, index + 1.0)
        made[f"s{index}"] = wave(rows, columns, index + 5.0) * 0.3
    return made


def select(scores: list[np.ndarray], kind: str) -> list[np.ndarray]:
    """Return masks: the first of the sorted |scores| are removed."""
    if kind == "positive":
        return [score > 0 for score in scores]
    if kind == "2:4":
        groups = [np.abs(score).reshape(-1, 4) for score in scores]
        # Of the order of each group, the rank of each entry.
        ranks = [np.argsort(np.argsort(g, 1), 1) for g in groups]
        pairs = zip(ranks, scores, strict=True)
        return [(rank >= 2).reshape(s.shape) for rank, s in pairs]
    if kind == "global":
        flat = np.concatenate([s.reshape(-1) for s in scores])
        [mask] = select([flat], "layer")
        parts = np.split(mask, [scores[0].size])
        return [m.reshape(s.shape) for m, s in zip(parts, scores, strict=True)]
    masks = []
    for score in scores:
        mask = np.ones(score.size, bool)
        order = np.argsort(np.abs(score).reshape(-1), kind="stable")
        mask[order[: round(SPARSITY * score.size)]] = False
        masks.append(mask.reshape(score.shape))
    return masks


def slope(scores: np.ndarray, kind: str) -> np.ndarray:
    """Return what the gradient of weight x mask is multiplied by."""
    if kind == "positive":
        return np.ones_like(scores)
    gate = 1 / (1 + np.exp(-np.abs(scores)))
    return np.sign(scores) * (gate * (1 - gate) if kind == "sigmoid" else 1)


def run(kind: str) -> dict[str, list]:
    """Train; return the loss of each step, the flips, and the last masks."""
    data = problem()
    weights = [data["w0"], data["w1"]]
    scores = [data["s0"].copy(), data["s1"].copy()]
    first = [np.zeros_like(s) for s in scores]
    second = [np.zeros_like(s) for s in scores]
    masks = select(scores, kind)
    losses, flips = [], []
    for step in range(1, STEPS + 1):
        w0, w1 = (w * m for w, m in zip(weights, masks, strict=True))
        before = data["x"] @ w0.T
        hidden = np.maximum(before, 0)
        error = hidden @ w1.T - data["y"]
        losses.append(float((error**2).mean()))
        g_out = 2 * error / error.size
        g_hidden = (g_out @ w1) * (before > 0)
        gradients = [g_hidden.T @ data["x"], g_out.T @ hidden]
        for i, gradient in enumerate(gradients):
            g = slope(scores[i], kind) * weights[i] * gradient
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            size = np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8
            scores[i] -= RATE * first[i] / (1 - 0.9**step) / size
        old, masks = masks, select(scores, kind)
        total = sum(m.size for m in masks)
        changed = sum(
            int((a != b).sum()) for a, b in zip(old, masks, strict=True)
        )
        flips.append(changed / total)
    return {
        "losses": losses,
        "flips": flips,
        "masks": [m.astype(int).tolist() for m in masks],
        "scores": [s.tolist() for s in scores],
    }


def main() -> None:
    """Write the golden numbers."""
    golden = {kind: run(kind) for kind in KINDS}
    PATH.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
