"""Mask tuning that starts from another subnetwork, stays, or trains along."""

import numpy as np
import pytest
import torch
from method_encoders import loss, make_encoder, output, save, train

from s3router.errors import MismatchError, SettingError
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.apply import apply_masks, put_weights
from s3router.methods.registry import build_method

SETTINGS = {"targets": "all", "sparsity": 0.5}
PATTERNS = {
    "unstructured": {},
    "2:4": {"pattern": "2:4"},
    "structured": {"pattern": "structured"},
}


def prepared(encoder=None, **settings):
    encoder = encoder or make_encoder()
    method = build_method("mask_tuning", **{**SETTINGS, **settings})
    method.prepare(encoder)
    return encoder, method


def copies(masks):
    return {name: mask.clone() for name, mask in masks.items()}


@pytest.fixture
def other_language(tmp_path):
    """A subnetwork of the same encoder, trained by another task."""

    def make(**settings):
        encoder, method = prepared(**settings)
        optimizer = torch.optim.Adam(method.router.scores().values(), lr=0.05)
        for step in range(1, 7):
            (-loss(encoder)).backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(step)
        return str(save(method, tmp_path / "other")), copies(method.masks())

    return make


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_transferred_mask_is_the_start_and_trains_on(pattern, other_language):
    settings = PATTERNS[pattern]
    folder, theirs = other_language(**settings)
    _, plain = prepared(**settings)
    assert any(
        not torch.equal(mask, theirs[name])
        for name, mask in plain.masks().items()
    ), "the other mask is where a plain start is; the test shows nothing"
    encoder, method = prepared(start_mask=folder, **settings)
    for name, mask in method.masks().items():
        assert torch.equal(mask, theirs[name]), name
    # Scores are those of a plain start, dealt out anew.
    for name, scores in method.router.scores().items():
        sizes = plain.router.scores()[name].abs().flatten().sort().values
        assert torch.equal(scores.abs().flatten().sort().values, sizes)
    train(encoder, method, steps=8)
    assert any(
        not torch.equal(mask, theirs[name])
        for name, mask in method.masks().items()
    )


def test_transfer_up_to_a_block(other_language):
    folder, theirs = other_language()
    _, plain = prepared()
    _, method = prepared(start_mask=folder, start_layers=1)
    for name, mask in method.masks().items():
        start = theirs if ".layers.0." in name else plain.masks()
        assert torch.equal(mask, start[name]), name


def test_transfer_to_another_sparsity_keeps_of_what_is_kept(other_language):
    folder, theirs = other_language()
    _, sparser = prepared(start_mask=folder, sparsity=0.7)
    _, denser = prepared(start_mask=folder, sparsity=0.2)
    for name, mask in theirs.items():
        assert not (sparser.masks()[name] & ~mask).any()
        assert not (mask & ~denser.masks()[name]).any()
        removed = int((~sparser.masks()[name]).sum())
        assert removed == round(0.7 * mask.numel())


def test_transfer_with_the_rule_positive(other_language):
    folder, theirs = other_language()
    _, method = prepared(start_mask=folder, rule="positive")
    for name, mask in method.masks().items():
        assert torch.equal(mask, theirs[name])
        assert torch.equal(method.router.scores()[name] > 0, mask)


def test_a_frozen_mask_is_just_that_mask(other_language):
    folder, theirs = other_language()
    encoder, method = prepared(start_mask=folder, frozen=True, sparsity=0.1)
    assert method.parameter_groups() == {}
    train(encoder, method)
    for name, mask in method.masks().items():
        assert torch.equal(mask, theirs[name])


def test_frozen_blocks_stay_and_others_train():
    encoder, method = prepared(frozen_layers=1)
    start = copies(method.masks())
    train(encoder, method, steps=8)
    changed = {
        name
        for name, mask in method.masks().items()
        if not torch.equal(mask, start[name])
    }
    assert changed
    assert all(".layers.1." in name for name in changed)


def test_weights_and_scores_train_together(tmp_path):
    encoder, method = prepared(train_weights=True)
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    assert set(method.parameter_groups()) == {"scores", "weights"}
    start = copies(method.masks())
    train(encoder, method, steps=6)
    assert any(not torch.equal(m, start[n]) for n, m in method.masks().items())
    moved = [
        n
        for n, p in encoder.named_parameters()
        if not torch.equal(p, before[n])
    ]
    assert any("layer_norm" in n for n in moved)
    assert not any(n.startswith("feature_extractor") for n in moved)
    assert_saved_is_what_runs(encoder, method, tmp_path)

    again, other = prepared(train_weights=True)
    state = {k: v.clone() for k, v in method.state_dict().items()}
    other.load_state_dict(state)
    assert torch.equal(output(encoder), output(again))


@pytest.mark.parametrize("settings", [{"frozen": True}, {"refresh_every": 10}])
def test_weights_that_train_are_seen_though_the_mask_stays(settings, tmp_path):
    encoder, method = prepared(train_weights=True, **settings)
    train(encoder, method, steps=4)
    assert_saved_is_what_runs(encoder, method, tmp_path)


def tuned_and_pruned(tmp_path):
    """Return a tuned encoder, its subnetwork's folder, and masks upon it."""
    tuned_encoder = make_encoder()
    full = build_method("full")
    full.prepare(tuned_encoder)
    train(tuned_encoder, full, steps=5)
    folder = str(save(full, tmp_path / "full"))
    encoder, method = prepared(
        start_weights=folder, init="weight_magnitude_with_scale"
    )
    return tuned_encoder, folder, encoder, method


def test_fine_tune_then_prune_masks_the_tuned_weights(tmp_path):
    tuned_encoder, folder, encoder, method = tuned_and_pruned(tmp_path)
    assert set(method.parameter_groups()) == {"scores"}
    for name, mask in method.masks().items():
        weight = tuned_encoder.get_submodule(name).weight.detach().abs()
        assert weight[mask].min() >= weight[~mask].max()
    train(encoder, method, steps=5)
    for name, mask in method.masks().items():
        tuned = tuned_encoder.get_submodule(name).weight.detach()
        saved = method.weights()[f"{name}.weight"]
        assert torch.equal(saved, tuned * mask)
    assert_saved_is_what_runs(encoder, method, tmp_path)


def largest_kept(scores, share):
    """Return the masks by |score|, each matrix by itself, in plain numpy."""
    masks = {}
    for name, values in scores.items():
        keep = np.ones(values.size, bool)
        order = np.argsort(np.abs(values).ravel(), kind="stable")
        keep[order[: round(share * values.size)]] = False
        masks[name] = keep.reshape(values.shape)
    return masks


def plain_gradients(tuned, masked):
    """Return the loss's gradients of weights in an encoder without masks."""
    encoder = make_encoder()
    put_weights(encoder, tuned)
    put_weights(encoder, {f"{name}.weight": w for name, w in masked.items()})
    linears = {name: encoder.get_submodule(name) for name in masked}
    for linear in linears.values():
        linear.weight.requires_grad_(True)
    loss(encoder).backward()
    return {name: m.weight.grad.numpy() for name, m in linears.items()}


def test_fine_tune_then_prune_follows_its_rule_in_numpy(tmp_path):
    """Scores start as the tuned weights; SGD on them, step by step."""
    _, folder, encoder, method = tuned_and_pruned(tmp_path)
    tuned = Subnetwork.load(folder).weights
    weights = {name: tuned[f"{name}.weight"] for name in method.masks()}
    scores = {name: weight.copy() for name, weight in weights.items()}
    rate, first = np.float32(20), largest_kept(scores, 0.5)
    (group,) = method.parameter_groups().values()
    optimizer = torch.optim.SGD(group, lr=float(rate))
    for step in range(1, 5):
        masks = largest_kept(scores, 0.5)
        for name, mask in method.masks().items():
            np.testing.assert_array_equal(mask.numpy(), masks[name])
        effective = {n: w * masks[n] for n, w in weights.items()}
        for name, gradient in plain_gradients(tuned, effective).items():
            # Straight through the selection, and through the |score|.
            sign = np.sign(scores[name])
            scores[name] = scores[name] - rate * sign * gradient * weights[name]
        loss(encoder).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    last = largest_kept(scores, 0.5)
    for name, mask in method.masks().items():
        np.testing.assert_array_equal(mask.numpy(), last[name])
    moved = sum((last[name] != mask).sum() for name, mask in first.items())
    assert moved > 100


def assert_saved_is_what_runs(encoder, method, tmp_path):
    loaded = Subnetwork.load(save(method, tmp_path / "saved"))
    plain = make_encoder()
    put_weights(plain, loaded.weights)
    apply_masks(plain, loaded.masks)
    np.testing.assert_allclose(
        output(plain).detach(), output(encoder).detach(), atol=1e-6
    )


def test_starts_that_cannot_be(other_language, tmp_path):
    folder, _ = other_language(targets="attention")
    with pytest.raises(MismatchError, match="masks other targets"):
        prepared(start_mask=folder)
    with pytest.raises(SettingError, match="has no tuned weights"):
        prepared(start_weights=folder)
    with pytest.raises(MismatchError, match="was made for the encoder"):
        prepared(make_encoder(seed=1), start_mask=folder)
    with pytest.raises(SettingError, match="there is no start_mask"):
        prepared(start_layers=1)
    with pytest.raises(SettingError, match="from 1 to 2"):
        prepared(start_mask=folder, targets="attention", start_layers=3)
    with pytest.raises(SettingError, match="from 1 to 2"):
        prepared(frozen_layers=0)
    with pytest.raises(SettingError, match="use scope layer"):
        prepared(frozen_layers=1, scope="global")
    full = build_method("full")
    full.prepare(make_encoder())
    unmasked = save(full, tmp_path / "full")
    with pytest.raises(
        SettingError, match="has no mask; it was made by 'full'"
    ):
        prepared(start_mask=str(unmasked))
