"""What a router promises, on every family of encoders."""

import numpy as np
import pytest
import torch
from speech_models import (
    FAMILIES,
    copies,
    make_audio,
    make_encoder,
    output,
    same,
    train,
)
from torch import nn

from s3router.errors import MismatchError, SettingError
from s3router.masks.router import Router, apply_masks


@pytest.mark.parametrize("family", FAMILIES)
def test_sparsity_zero_is_the_base_model_bit_for_bit(family):
    encoder, audio = make_encoder(family), make_audio()
    base = output(encoder, audio)
    router = Router(encoder, "all", 0.0)
    assert torch.equal(output(encoder, audio), base)
    assert router.sparsity() == 0 and all(
        row["removed"] == 0 for row in router.report()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_in_the_output(family):
    encoder, audio = make_encoder(family), make_audio()
    base = output(encoder, audio)
    Router(encoder, "all", 0.3)
    masked = output(encoder, audio)
    other = make_encoder(family)
    with torch.no_grad():
        for name in encoder.state_dict():
            if name.endswith("parametrizations.weight.0.mask"):
                owner = name.removesuffix(".parametrizations.weight.0.mask")
                weight = other.get_submodule(owner).weight
                weight[~encoder.state_dict()[name]] = 0
    assert torch.equal(masked, output(other, audio))
    assert (masked - base).abs().max() > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_every_score_gets_a_gradient_and_nothing_else_does(family):
    encoder = make_encoder(family).train()
    router = Router(encoder, "all", 0.3)
    output(encoder, make_audio()).square().sum().backward()
    scores = {id(score) for score in router.scores().values()}
    assert len(scores) == 18
    for name, parameter in encoder.named_parameters():
        if id(parameter) in scores:
            alive = (parameter.grad != 0).float().mean()
            assert alive > 0.9, name
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name


def test_training_changes_only_scores_and_masks():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = copies(encoder.state_dict())
    flips = train(router, encoder, 3)
    assert all(0 < share < 1 for share in flips)
    after = encoder.state_dict()
    changed = {
        name for name in after if not torch.equal(after[name], before[name])
    }
    assert len(changed) == 36
    assert all(n.endswith(("0.scores", "0.mask")) for n in changed)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.1, 0.333, 0.9])
def test_counts_stay_exact_in_training(scope, sparsity):
    encoder = make_encoder()
    router = Router(encoder, "all", sparsity, scope=scope)
    train(router, encoder, 2)
    rows = router.report()
    masks = router.masks()
    for row in rows:
        mask = masks[row["name"]]
        assert row["removed"] == int((~mask).sum())
        assert row["total"] == mask.numel()
        assert row["sparsity"] == row["removed"] / row["total"]
        if scope == "layer":
            assert row["removed"] == round(sparsity * row["total"])
    total = sum(row["total"] for row in rows)
    removed = sum(row["removed"] for row in rows)
    assert removed / total == router.sparsity()
    if scope == "global":
        assert removed == round(sparsity * total)
        assert len({row["sparsity"] for row in rows}) > 1


def test_the_start_is_the_magnitude_mask():
    encoder = make_encoder()
    weights = {
        name: module.weight.detach().clone()
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
    }
    router = Router(encoder, "all", 0.25)
    for name, mask in router.masks().items():
        magnitude = weights[name].abs()
        assert magnitude[mask].min() >= magnitude[~mask].max()


def test_masks_follow_the_scores():
    encoder = make_encoder()
    router = Router(encoder, "feed_forward", 0.25)
    score = next(iter(router.scores().values()))
    mask = next(iter(router.masks().values()))
    with torch.no_grad():
        score.fill_(1.0)
        score[:16] = -2.0
        score[40:56] = 0.5
    assert router.refresh() > 0
    assert not mask[40:56].any()
    assert mask[:40].all() and mask[56:].all()
    assert router.refresh() == 0.0


def test_buffers_are_the_same_tensors_for_ever():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = {n: (id(m), m.data_ptr()) for n, m in router.masks().items()}
    train(router, encoder, 2)
    router.activate({n: ~m for n, m in copies(router.masks()).items()})
    router.load_state_dict(copies(router.state_dict()))
    after = {n: (id(m), m.data_ptr()) for n, m in router.masks().items()}
    assert before == after


def test_activate_there_and_back():
    encoder, audio = make_encoder(), make_audio()
    router = Router(encoder, "all", 0.2)
    first, masks = output(encoder, audio), copies(router.masks())
    train(router, encoder, 3)
    second, others = output(encoder, audio), copies(router.masks())
    assert not torch.equal(first, second)
    router.activate(masks)
    assert torch.equal(output(encoder, audio), first)
    router.activate({n: m.numpy() for n, m in others.items()})
    assert torch.equal(output(encoder, audio), second)
    router.activate(masks)
    assert torch.equal(output(encoder, audio), first)
    assert same(router.masks(), masks)


def test_activate_counts_what_it_got():
    encoder = make_encoder()
    router = Router(encoder, "*.q_proj", 0.2)
    name = router.targets[0]
    masks = {n: torch.ones_like(m) for n, m in router.masks().items()}
    masks[name][0] = False
    router.activate(masks)
    assert router.report()[0]["removed"] == 32
    assert router.sparsity() == 32 / (3 * 32 * 32)


@pytest.mark.parametrize("way", ["missing", "unknown", "shape", "dtype"])
def test_activate_is_strict_and_whole(way):
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = copies(router.masks())
    masks = {n: ~m for n, m in before.items()}
    last = router.targets[-1]
    if way == "missing":
        del masks[last]
    elif way == "unknown":
        masks[last + "s"] = masks[last]
    elif way == "shape":
        masks[last] = masks[last].t()
    else:
        masks[last] = masks[last].float()
    with pytest.raises(MismatchError, match=last.replace(".", r"\.")):
        router.activate(masks)
    assert same(router.masks(), before)


def test_frozen_masks_stay():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    masks = {n: ~m for n, m in copies(router.masks()).items()}
    router.activate(masks)
    router.frozen = True
    assert not any(s.requires_grad for s in router.scores().values())
    assert router.refresh() == 0.0 and same(router.masks(), masks)
    router.frozen = False
    assert all(s.requires_grad for s in router.scores().values())
    assert router.refresh() > 0.0 and not same(router.masks(), masks)


def test_fold_equals_masked_and_leaves_a_plain_model():
    encoder, audio = make_encoder(), make_audio()
    plain = set(encoder.state_dict())
    router = Router(encoder, "all", 0.4)
    masked, masks = output(encoder, audio), router.masks()
    router.fold()
    assert torch.equal(output(encoder, audio), masked)
    assert set(encoder.state_dict()) == plain
    for name, mask in masks.items():
        linear = encoder.get_submodule(name)
        assert type(linear) is nn.Linear
        assert (linear.weight[~mask] == 0).all()
    # What was found can still be asked for, but no longer changed.
    assert router.sparsity() == pytest.approx(0.4, abs=0.001)
    assert same(router.masks(), masks)
    for call in (router.refresh, router.fold, router.remove):
        with pytest.raises(SettingError, match="folded or removed"):
            call()
    with pytest.raises(SettingError, match="folded or removed"):
        router.activate(masks)


def test_remove_gives_the_base_model_back():
    encoder, audio = make_encoder(), make_audio()
    base, before = output(encoder, audio), copies(encoder.state_dict())
    router = Router(encoder, "all", 0.4)
    train(router, encoder, 1)
    router.remove()
    assert same(encoder.state_dict(), before)
    assert torch.equal(output(encoder, audio), base)
    Router(encoder, "all", 0.4)


def test_apply_masks_equals_fold():
    encoder, other, audio = make_encoder(), make_encoder(), make_audio()
    router = Router(encoder, "all", 0.4)
    masks = {n: m.numpy() for n, m in router.masks().items()}
    apply_masks(other, masks)
    assert torch.equal(output(encoder, audio), output(other, audio))


def test_apply_masks_is_strict_and_whole():
    encoder = make_encoder()
    before = copies(encoder.state_dict())
    good = {"encoder.layers.0.attention.q_proj": np.zeros((32, 32), bool)}
    for name, mask, text in (
        ("encoder.layers.0.attention.q_prj", np.ones((32, 32), bool), "q_proj"),
        ("encoder.layers.0.attention.k_proj", np.ones((32, 9), bool), "shape"),
        ("encoder.layers.0.attention.k_proj", np.ones((32, 32)), "float64"),
    ):
        with pytest.raises(MismatchError, match=text):
            apply_masks(encoder, {**good, name: mask})
        assert same(encoder.state_dict(), before)
    Router(encoder, "all", 0.1)
    with pytest.raises(SettingError, match="already has a parametrization"):
        apply_masks(encoder, good)


def test_state_returns_bit_for_bit():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    train(router, encoder, 2)
    saved = copies(router.state_dict())
    train(router, encoder, 1)
    assert not same(router.state_dict(), saved)
    router.load_state_dict(saved)
    assert same(router.state_dict(), saved)
    fresh = make_encoder()
    other = Router(fresh, "all", 0.2, seed=7)
    other.load_state_dict(saved)
    audio = make_audio()
    assert torch.equal(output(fresh, audio), output(encoder, audio))
    assert other.report() == router.report()


def test_training_goes_on_from_a_state_as_if_never_stopped():
    def optimizer_of(router):
        return torch.optim.Adam(router.scores().values(), lr=0.02)

    def step(router, encoder, optimizer):
        optimizer.zero_grad()
        output(encoder, make_audio()).square().mean().backward()
        optimizer.step()
        router.refresh()

    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    optimizer = optimizer_of(router)
    for _ in range(2):
        step(router, encoder, optimizer)
    saved = copies(router.state_dict())
    import copy

    moments = copy.deepcopy(optimizer.state_dict())
    step(router, encoder, optimizer)

    again = make_encoder()
    resumed = Router(again, "all", 0.2)
    resumed.load_state_dict(saved)
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(moments)
    step(resumed, again, optimizer)
    assert same(router.state_dict(), resumed.state_dict())


def test_a_foreign_state_is_refused():
    router = Router(make_encoder(), "all", 0.2)
    other = Router(make_encoder(), "attention", 0.2)
    before = copies(router.state_dict())
    with pytest.raises(MismatchError, match="router state .* is missing"):
        router.load_state_dict(other.state_dict())
    with pytest.raises(MismatchError, match="has no place here"):
        other.load_state_dict(before)
    assert same(router.state_dict(), before)
