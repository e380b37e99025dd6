"""Magnitude: one shot, in rounds, and laid on the original weights."""

import numpy as np
import pytest
from method_encoders import make_encoder, save, train
from numpy_rules import (
    RULES,
    assert_masks,
    build_and_prepare,
    each_alone,
    formula_encoder,
    tuned_by_formula,
    weights_of,
)

from s3router.formats.subnetwork import Subnetwork
from s3router.methods.registry import build_method


@pytest.mark.parametrize("scope", RULES)
@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.77])
def test_magnitude_removes_the_smallest_weights(scope, share):
    encoder = formula_encoder()
    method = build_method("magnitude", sparsity=share, scope=scope)
    names = [
        n
        for n, m in encoder.named_modules()
        if n.endswith(("proj", "dense")) and "layers" in n
    ]
    before = weights_of(encoder, names)
    method.prepare(encoder)
    expected = RULES[scope](before, share)
    assert_masks(method, expected)
    for name, weight in weights_of(encoder, names).items():
        np.testing.assert_array_equal(weight, before[name] * expected[name])


def test_kept_weights_train_and_removed_ones_stay_zero():
    encoder = make_encoder()
    method = build_method("magnitude", sparsity=0.6)
    method.prepare(encoder)
    before = {n: w.clone() for n, w in method.weights().items()}
    train(encoder, method, steps=4)
    after = method.weights()
    for owner, mask in method.masks().items():
        weight, old = after[f"{owner}.weight"], before[f"{owner}.weight"]
        assert not weight[~mask].any()
        assert (weight[mask] != old[mask]).float().mean() > 0.9


def test_without_training_weights_only_the_mask_is_stored(tmp_path):
    encoder = make_encoder()
    method = build_method("magnitude", sparsity=0.6, train_weights=False)
    method.prepare(encoder)
    assert method.parameter_groups() == {}
    train(encoder, method)
    loaded = Subnetwork.load(save(method, tmp_path / "xx"))
    assert loaded.weights == {}
    assert loaded.config["measured_sparsity"] == pytest.approx(0.6, abs=1e-3)


def test_one_shot_ranks_a_fine_tuned_models_weights(tmp_path):
    tuned_encoder = make_encoder()
    full = build_method("full")
    full.prepare(tuned_encoder)
    train(tuned_encoder, full, steps=5)
    folder = save(full, tmp_path / "full")

    encoder = make_encoder()
    names = list(build_and_prepare("magnitude", encoder).masks())
    original = weights_of(make_encoder(), names)
    tuned = weights_of(tuned_encoder, names)
    encoder = make_encoder()
    method = build_and_prepare(
        "magnitude", encoder, sparsity=0.5, start_mask=str(folder)
    )
    expected = each_alone(tuned, 0.5)
    assert_masks(method, expected)
    assert any(
        (expected[n] != m).any() for n, m in each_alone(original, 0.5).items()
    )
    # The weights are rewound: kept ones are the pre-trained ones.
    for name, weight in weights_of(encoder, names).items():
        np.testing.assert_array_equal(weight, original[name] * expected[name])


def test_rounds_of_magnitude_pruning_are_the_lottery_ticket(tmp_path):
    """Each round ranks what the last one trained; nothing comes back."""
    masks, start = [], None
    for number, share in enumerate((0.2, 0.4, 0.6)):
        encoder = make_encoder()
        method = build_and_prepare(
            "magnitude", encoder, sparsity=share, start_mask=start
        )
        masks.append({n: m.numpy().copy() for n, m in method.masks().items()})
        train(encoder, method, steps=4)
        trained = weights_of(encoder, masks[-1])
        start = str(save(method, tmp_path / str(number)))
        following = each_alone(trained, share + 0.2)
        if number < 2:
            expected = following
        if number:
            for name, mask in masks[-1].items():
                assert not (mask & ~masks[-2][name]).any()
    for name, mask in masks[-1].items():
        np.testing.assert_array_equal(mask, expected[name])


@pytest.mark.parametrize("scope", RULES)
def test_extraction_lays_the_tuned_models_mask_on_the_original(scope, tmp_path):
    start, tuned = tuned_by_formula(tmp_path)
    encoder = formula_encoder()
    method = build_and_prepare(
        "magnitude",
        encoder,
        sparsity=0.4,
        scope=scope,
        start_mask=start,
        train_weights=False,
    )
    train(encoder, method, steps=3)
    expected = RULES[scope](tuned, 0.4)
    assert_masks(method, expected)
    original = weights_of(formula_encoder(), tuned)
    for name, weight in weights_of(encoder, tuned).items():
        np.testing.assert_array_equal(weight, original[name] * expected[name])
    assert any(
        (mask != expected[name]).any()
        for name, mask in RULES[scope](original, 0.4).items()
    )
