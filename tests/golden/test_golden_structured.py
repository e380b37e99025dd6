"""Channels and heads that train, step by step, against plain numpy.

Two blocks with weights by formula: `out(q * k + v)`, then a feed-forward part
with a ReLU, both added to their input. There is no softmax: what heads are is a
matter of rows and columns only. The restatement puts a gate of 0 or 1 on each
head and channel, and knows nothing of masks on matrices.
"""

import numpy as np
import pytest
import torch
from numpy_mask_tuning import wave
from torch import nn

from s3router.masks.router import Router

WIDTH, HEADS, CHANNELS, BLOCKS = 6, 3, 10, 2
STEPS, RATE, SPARSITY = 15, 0.03, 0.3
SHAPES = {
    "q": (WIDTH, WIDTH),
    "k": (WIDTH, WIDTH),
    "v": (WIDTH, WIDTH),
    "out": (WIDTH, WIDTH),
    "fc1": (CHANNELS, WIDTH),
    "fc2": (WIDTH, CHANNELS),
}


def problem():
    weights = [
        {
            name: 0.5 * wave(*shape, shift=7.0 * block + index)
            for index, (name, shape) in enumerate(SHAPES.items())
        }
        for block in range(BLOCKS)
    ]
    scores = [
        {
            "attention": 0.3 * wave(1, HEADS, 20.0 + block)[0],
            "feed_forward": 0.3 * wave(1, CHANNELS, 30.0 + block)[0],
        }
        for block in range(BLOCKS)
    ]
    return weights, scores, wave(8, WIDTH, 0.3), wave(8, WIDTH, 0.9)


class Block(nn.Module):
    """What a transformer block is known by, and no more."""

    def __init__(self, weights):
        super().__init__()
        self.attention = nn.Module()
        self.attention.num_heads = HEADS
        self.feed_forward = nn.Module()
        names = {
            "q": (self.attention, "q_proj"),
            "k": (self.attention, "k_proj"),
            "v": (self.attention, "v_proj"),
            "out": (self.attention, "out_proj"),
            "fc1": (self.feed_forward, "intermediate_dense"),
            "fc2": (self.feed_forward, "output_dense"),
        }
        for role, (owner, name) in names.items():
            rows, columns = SHAPES[role]
            linear = nn.Linear(columns, rows, bias=False)
            linear.weight.data = torch.tensor(weights[role]).float()
            setattr(owner, name, linear)

    def forward(self, x):
        a, f = self.attention, self.feed_forward
        x = x + a.out_proj(a.q_proj(x) * a.k_proj(x) + a.v_proj(x))
        return x + f.output_dense(f.intermediate_dense(x).relu())


class Blocks(nn.Module):
    """One after the other, in a list, as encoders have them."""

    def __init__(self, weights):
        super().__init__()
        self.layers = nn.ModuleList(Block(w) for w in weights)

    def forward(self, x):
        for block in self.layers:
            x = block(x)
        return x


def keep_largest(scores, together):
    """Return a bool for each head and channel; parts are ranked apart."""
    kept = [{} for _ in scores]
    for part in ("attention", "feed_forward"):
        pools = [range(BLOCKS)] if together else [[b] for b in range(BLOCKS)]
        for pool in pools:
            sizes = np.abs(np.concatenate([scores[b][part] for b in pool]))
            keep = np.ones(sizes.size, bool)
            order = np.argsort(sizes, kind="stable")
            keep[order[: round(SPARSITY * sizes.size)]] = False
            for b, one in zip(pool, np.split(keep, len(pool)), strict=True):
                kept[b][part] = one
    return kept


def gradients(weights, gates, x, y):
    """Return the loss, and its gradient by each gate."""
    inputs, inner = [], []
    for w, gate in zip(weights, gates, strict=True):
        q, k, v = (x @ w[name].T for name in "qkv")
        mixed = q * k + v
        heads = np.repeat(gate["attention"], WIDTH // HEADS)
        middle = x + (mixed * heads) @ w["out"].T
        before = middle @ w["fc1"].T
        hidden = np.maximum(before, 0)
        inputs.append(x)
        inner.append((q, k, mixed, heads, before, hidden))
        x = middle + (hidden * gate["feed_forward"]) @ w["fc2"].T
    error = x - y
    loss, g = (error**2).mean(), 2 * error / error.size
    found = []
    for w, gate, x_in, (q, k, mixed, heads, before, hidden) in zip(
        weights[::-1], gates[::-1], inputs[::-1], inner[::-1], strict=True
    ):
        of_hidden = g @ w["fc2"]
        of_channels = (of_hidden * hidden).sum(0)
        g = g + (of_hidden * gate["feed_forward"] * (before > 0)) @ w["fc1"]
        of_mixed = g @ w["out"]
        of_heads = (of_mixed * mixed).sum(0).reshape(HEADS, -1).sum(1)
        of_mixed = of_mixed * heads
        g = (
            g
            + (of_mixed * k) @ w["q"]
            + (of_mixed * q) @ w["k"]
            + of_mixed @ w["v"]
        )
        found.append({"attention": of_heads, "feed_forward": of_channels})
        assert x_in.shape == g.shape
    return loss, found[::-1]


def restated(together):
    """Train gates; return losses, flips and what is kept in the end."""
    weights, scores, x, y = problem()
    moments = [
        {part: [np.zeros_like(s), np.zeros_like(s)] for part, s in one.items()}
        for one in scores
    ]
    kept = keep_largest(scores, together)
    losses, moved = [], 0
    for step in range(1, STEPS + 1):
        gates = [{p: k.astype(float) for p, k in one.items()} for one in kept]
        loss, found = gradients(weights, gates, x, y)
        losses.append(loss)
        for score, own, gradient in zip(scores, moments, found, strict=True):
            for part, of_gate in gradient.items():
                g = np.sign(score[part]) * of_gate
                first, second = own[part]
                first[:] = 0.9 * first + 0.1 * g
                second[:] = 0.999 * second + 0.001 * g**2
                size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
                score[part] -= RATE * first / (1 - 0.9**step) / size
        old, kept = kept, keep_largest(scores, together)
        moved += sum(
            int((a[part] != b[part]).sum())
            for a, b in zip(old, kept, strict=True)
            for part in a
        )
    assert moved > 4, "a problem in which nothing moves shows nothing"
    return losses, kept, scores


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_channels_and_heads_train_as_gates_do(scope):
    losses, kept, numbers = restated(scope == "global")
    weights, scores, x, y = problem()
    model = Blocks(weights)
    router = Router(model, "all", SPARSITY, scope, "structured")
    with torch.no_grad():
        for name, score in router.scores().items():
            *_, block, part = name.split(".")
            score.copy_(torch.tensor(scores[int(block)][part]))
    router.refresh()
    optimizer = torch.optim.Adam(router.scores().values(), lr=RATE)
    x, y = torch.tensor(x).float(), torch.tensor(y).float()
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        router.refresh(step)
        np.testing.assert_allclose(loss.item(), losses[step - 1], rtol=1e-4)
    masks = router.masks()
    for index, one in enumerate(kept):
        heads = np.repeat(one["attention"], WIDTH // HEADS)
        columns = masks[f"layers.{index}.attention.out_proj"].numpy()
        rows = masks[f"layers.{index}.attention.q_proj"].numpy()
        assert (columns == heads[None, :]).all()
        assert (rows == heads[:, None]).all()
        channels = one["feed_forward"]
        fc1 = masks[f"layers.{index}.feed_forward.intermediate_dense"].numpy()
        fc2 = masks[f"layers.{index}.feed_forward.output_dense"].numpy()
        assert (fc1 == channels[:, None]).all()
        assert (fc2 == channels[None, :]).all()
    for name, score in router.scores().items():
        *_, block, part = name.split(".")
        np.testing.assert_allclose(
            score.detach().numpy(),
            numbers[int(block)][part],
            rtol=1e-3,
            atol=1e-4,
        )
