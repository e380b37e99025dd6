"""The product, step by step, against numbers from plain numpy."""

import json

import numpy as np
import pytest
import torch
from numpy_mask_tuning import (
    KINDS,
    PATH,
    RATE,
    SIZES,
    SPARSITY,
    STEPS,
    problem,
    run,
)
from torch import nn

from s3router.masks.router import Router

SETTINGS = {
    "layer": {"sparsity": SPARSITY},
    "global": {"sparsity": SPARSITY, "scope": "global"},
    "2:4": {"sparsity": 0.5, "pattern": "2:4"},
    "positive": {"sparsity": SPARSITY, "rule": "positive"},
    "sigmoid": {"sparsity": SPARSITY, "surrogate": "sigmoid"},
}


@pytest.fixture(scope="module")
def golden():
    return json.loads(PATH.read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_script(golden, kind):
    again = run(kind)
    np.testing.assert_allclose(again["losses"], golden[kind]["losses"])
    assert again["masks"] == golden[kind]["masks"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_follows_the_numbers(golden, kind):
    data = {k: torch.tensor(v).float() for k, v in problem().items()}
    layers = [nn.Linear(i, o, bias=False) for o, i in SIZES]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    with torch.no_grad():
        layers[0].weight.copy_(data["w0"])
        layers[1].weight.copy_(data["w1"])
    router = Router(model, "*", **SETTINGS[kind])
    with torch.no_grad():
        router.scores()["0"].copy_(data["s0"])
        router.scores()["2"].copy_(data["s1"])
    router.refresh()
    optimizer = torch.optim.Adam(router.scores().values(), lr=RATE)
    losses, flips = [], []
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        loss = (model(data["x"]) - data["y"]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        flips.append(router.refresh(step))
    expected = golden[kind]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
    assert flips == expected["flips"] and max(flips) > 0
    masks = router.masks().values()
    assert [m.int().tolist() for m in masks] == expected["masks"]
    for score, numbers in zip(
        router.scores().values(), expected["scores"], strict=True
    ):
        np.testing.assert_allclose(
            score.detach().numpy(), numbers, rtol=1e-3, atol=1e-5
        )
