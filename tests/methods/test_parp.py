"""Prune, adjust and re-prune, from each of its starts."""

import numpy as np
import pytest
import torch
from method_encoders import make_encoder, save, train
from numpy_rules import (
    RULES,
    assert_masks,
    build_and_prepare,
    formula_encoder,
    pretend_to_train,
    smallest_removed,
    tuned_by_formula,
    weights_of,
)

from s3router.errors import SettingError
from s3router.methods.registry import build_method


@pytest.mark.parametrize("scope", RULES)
@pytest.mark.parametrize("initial", [None, 0.1])
def test_parp_prunes_adjusts_and_prunes_again(scope, initial):
    share, every, steps = 0.5, 3, 14
    encoder, other = formula_encoder(), formula_encoder()
    method = build_method(
        "parp",
        sparsity=share,
        scope=scope,
        reprune_every=every,
        initial_sparsity=initial,
        ramp_share=0.7,
    )
    method.prepare(encoder)
    method.plan(steps)
    names = list(method.masks())
    rule = RULES[scope]

    def zero(share_now):
        masks = rule(weights_of(other, names), share_now)
        with torch.no_grad():
            for name, mask in masks.items():
                other.get_submodule(name).weight.mul_(torch.from_numpy(mask))

    # Restated: 9 of 14 steps rise (0.7 * 14 = 9.8), three prunings.
    rises = {0: 0.1, 3: 0.1 + 0.4 / 3, 6: 0.1 + 0.8 / 3}
    zero(share if initial is None else rises[0])
    for step in range(1, steps + 1):
        for one in (encoder, other):
            pretend_to_train(one, names, step)
        method.after_step(step)
        if step % every == 0:
            zero(share if initial is None else rises.get(step, share))
        mine, theirs = weights_of(encoder, names), weights_of(other, names)
        for name in names:
            np.testing.assert_array_equal(mine[name], theirs[name])
    grown = sum((w != 0).sum() for w in mine.values())
    total = sum(w.size for w in mine.values())
    assert grown > 0.9 * total, "weights grow back between prunings"
    # Two steps after the last pruning, what is saved is pruned all the same.
    expected = rule(mine, share)
    assert_masks(method, expected)
    removed = sum((~m).sum() for m in expected.values())
    assert removed == (
        round(share * total)
        if scope == "global"
        else sum(round(share * m.size) for m in expected.values())
    )
    saved = method.weights()
    for name, mask in expected.items():
        np.testing.assert_array_equal(
            saved[f"{name}.weight"].numpy(), mine[name] * mask
        )


def test_parp_starts_from_a_fine_tuned_models_mask(tmp_path):
    start, tuned = tuned_by_formula(tmp_path)
    encoder = formula_encoder()
    method = build_and_prepare(
        "parp", encoder, sparsity=0.4, reprune_every=2, start_mask=start
    )
    method.plan(4)
    expected = smallest_removed(tuned, 0.4)
    original = weights_of(formula_encoder(), tuned)
    now = {name: original[name] * expected[name] for name in tuned}
    for name, weight in weights_of(encoder, tuned).items():
        np.testing.assert_array_equal(weight, now[name])
    other = formula_encoder()
    with torch.no_grad():
        for name, weight in now.items():
            other.get_submodule(name).weight.copy_(torch.from_numpy(weight))
    for step in (1, 2):
        for one in (encoder, other):
            pretend_to_train(one, tuned, step)
        method.after_step(step)
    assert_masks(method, smallest_removed(weights_of(other, tuned), 0.4))


def test_parp_starts_from_another_languages_subnetwork(tmp_path):
    encoder = make_encoder()
    other = build_and_prepare(
        "mask_tuning", encoder, targets="all", sparsity=0.5
    )
    train(encoder, other, steps=6)
    folder = save(other, tmp_path / "other")
    theirs = {n: m.numpy().copy() for n, m in other.masks().items()}
    encoder = make_encoder()
    original = weights_of(encoder, theirs)
    build_and_prepare(
        "parp", encoder, sparsity=0.5, scope="layer", start_mask=str(folder)
    )
    for name, weight in weights_of(encoder, theirs).items():
        np.testing.assert_array_equal(weight, original[name] * theirs[name])


def test_parp_refuses_what_cannot_be():
    with pytest.raises(SettingError, match="only rises"):
        build_method("parp", sparsity=0.3, initial_sparsity=0.4)
    with pytest.raises(SettingError, match="reprune_every is 0"):
        build_method("parp", reprune_every=0)
    with pytest.raises(SettingError, match="ramp_share is 1.5"):
        build_method("parp", initial_sparsity=0.1, ramp_share=1.5)
    with pytest.raises(SettingError, match="fixes the sparsity"):
        build_method("parp", initial_sparsity=0.1, pattern="2:4")
    for share in (7, 0, "half", True, float("nan")):
        # Whether or not there is something to rise.
        for initial in (None, 0.1):
            with pytest.raises(SettingError, match=f"ramp_share is {share!r}"):
                build_method("parp", initial_sparsity=initial, ramp_share=share)
    method = build_method("parp", initial_sparsity=0.1, reprune_every=50)
    with pytest.raises(SettingError, match="never get there"):
        method.plan(60)


def test_parp_takes_a_sparsity_by_part_unless_it_rises():
    shares = {"feed_forward": 0.5, "attention": 0.25}
    encoder = make_encoder()
    method = build_and_prepare("parp", encoder, sparsity=shares, scope="layer")
    for name, mask in method.masks().items():
        part = "attention" if ".attention." in name else "feed_forward"
        assert int((~mask).sum()) == round(shares[part] * mask.numel())
    with pytest.raises(SettingError) as caught:
        build_method("parp", sparsity=shares, initial_sparsity=0.1)
    text = str(caught.value)
    assert f"sparsity is {shares!r}" in text and "one number" in text
    assert "[0, 1)" not in text and "\n" not in text
