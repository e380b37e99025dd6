"""The control: masks that know nothing of the weights."""

import numpy as np
import torch
from numpy_rules import (
    build_and_prepare,
    formula_encoder,
    weights_of,
)


def test_a_random_mask_has_nothing_to_do_with_the_weights():
    masks = [
        build_and_prepare("random", formula_encoder(), sparsity=0.3, seed=s)
        for s in (0, 0, 1)
    ]
    first, again, other = (m.masks() for m in masks)
    weights = weights_of(formula_encoder(), first)
    for name, mask in first.items():
        assert torch.equal(mask, again[name])
        assert not torch.equal(mask, other[name])
        assert int((~mask).sum()) == round(0.3 * mask.numel())
        size = np.abs(weights[name])
        kept, removed = size[mask.numpy()], size[~mask.numpy()]
        error = size.std() * np.sqrt(1 / kept.size + 1 / removed.size)
        assert abs(kept.mean() - removed.mean()) < 4.5 * error
