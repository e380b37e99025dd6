"""Importance by the gradient."""

import numpy as np
import pytest
import torch
from method_encoders import make_encoder
from numpy_rules import (
    RULES,
    assert_masks,
    build_and_prepare,
    formula_encoder,
    weights_of,
)

from s3router.errors import SettingError
from s3router.methods.registry import build_method


@pytest.mark.parametrize("scope", RULES)
def test_taylor_removes_what_the_loss_would_miss_least(scope):
    encoder = formula_encoder()
    method = build_method("taylor", sparsity=0.4, scope=scope, taylor_batches=5)
    method.prepare(encoder)
    names = list(method.masks())
    weights = weights_of(encoder, names)
    batches = [1.0, -2.0, 0.5]

    def slope(name, batch):
        size = weights[name].size
        angle = np.arange(size) * 0.71 + 3 * batch + names.index(name)
        return np.cos(angle).reshape(weights[name].shape).astype(np.float32)

    def batch_loss(batch):
        # Linear in the weights, so that the gradient is the slope.
        return sum(
            (
                encoder.get_submodule(n).weight
                * torch.from_numpy(slope(n, batch))
            ).sum()
            for n in names
        )

    method.before_fit(lambda: iter(batches), batch_loss)
    seen = [*batches, *batches[:2]]  # five batches of epochs of three
    importance = {
        n: sum((slope(n, b) * weights[n]) ** 2 for b in seen) for n in names
    }
    assert_masks(method, RULES[scope](importance, 0.4))
    for name, mask in method.masks().items():
        np.testing.assert_array_equal(
            weights_of(encoder, [name])[name], weights[name] * mask.numpy()
        )


def test_taylor_needs_data():
    method = build_and_prepare("taylor", make_encoder())
    with pytest.raises(SettingError, match="no training batch"):
        method.before_fit(lambda: iter([]), lambda _: None)
    with pytest.raises(SettingError, match="taylor_batches is 0"):
        build_method("taylor", taylor_batches=0)
