"""Encoders of weights by a formula, and selection restated in numpy."""

import numpy as np
import torch
from method_encoders import make_encoder, save

from s3router.methods.registry import build_method


def formula_encoder():
    """Return an encoder whose linear weights follow from a formula."""
    encoder = make_encoder()
    for number, (name, module) in enumerate(encoder.named_modules()):
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            size = module.weight.numel()
            values = np.sin(np.arange(size) * 1.37 + number) * (1 + number % 5)
            with torch.no_grad():
                module.weight.copy_(
                    torch.from_numpy(values).view_as(module.weight)
                )
    return encoder


def weights_of(encoder, names):
    return {
        n: encoder.get_submodule(n).weight.detach().numpy().copy()
        for n in names
    }


def smallest_removed(values, share):
    """Return the masks of arrays that are ranked together."""
    flat = np.concatenate([np.abs(v).ravel() for v in values.values()])
    keep = np.ones(flat.size, bool)
    keep[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = False
    sizes = np.cumsum([v.size for v in values.values()])[:-1]
    parts = np.split(keep, sizes)
    return {
        name: part.reshape(values[name].shape)
        for name, part in zip(values, parts, strict=True)
    }


def each_alone(values, share):
    return {
        name: smallest_removed({name: v}, share)[name]
        for name, v in values.items()
    }


RULES = {"layer": each_alone, "global": smallest_removed}


def assert_masks(method, expected):
    found = method.masks()
    assert list(found) == list(expected)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask.numpy(), expected[name])


def build_and_prepare(name, encoder, targets="all", **settings):
    method = build_method(name, targets=targets, **settings)
    method.prepare(encoder)
    return method


def pretend_to_train(encoder, names, step):
    """Change weights by a formula, as an optimizer would."""
    for number, name in enumerate(names):
        weight = encoder.get_submodule(name).weight
        angle = np.arange(weight.numel()) * 0.9 + 7 * step + number
        change = 0.3 * np.cos(angle).astype(np.float32)
        with torch.no_grad():
            weight.add_(torch.from_numpy(change).view_as(weight))


def tuned_by_formula(tmp_path):
    """Return a fine-tuned subnetwork, and what it made of the weights."""
    encoder = formula_encoder()
    full = build_and_prepare("full", encoder)
    names = list(build_and_prepare("random", formula_encoder()).masks())
    pretend_to_train(encoder, names, step=1)
    folder = save(full, tmp_path / "full", encoder=formula_encoder())
    return str(folder), weights_of(encoder, names)
