"""The rule that ranks nothing: what has a positive score stays."""

import numpy as np
import pytest
import torch
from speech_models import make_audio, make_encoder, output, train
from torch import nn

from s3router.errors import SettingError, VerificationError
from s3router.masks.router import Router
from s3router.masks.straight_through import masked_weight
from s3router.methods.mask_tuning import MaskTuning

FREE = {"targets": "all", "rule": "positive"}


@pytest.mark.parametrize("init", ["weight_rank", "kaiming_uniform"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5])
def test_it_starts_from_the_masks_of_the_other_rule(init, sparsity):
    settings = {"targets": "all", "sparsity": sparsity, "init": init}
    top = Router(make_encoder(), **settings)
    free = Router(make_encoder(), **settings, rule="positive")
    assert free.sparsity() == pytest.approx(sparsity, abs=1e-3)
    for name, mask in top.masks().items():
        assert torch.equal(free.masks()[name], mask), name
        assert (free.scores()[name] > 0).equal(mask)


def test_masks_are_the_signs_of_the_scores():
    encoder = make_encoder()
    router = Router(encoder, **FREE, sparsity=0.2)
    before = {n: m.numpy().copy() for n, m in router.masks().items()}
    base = output(encoder, make_audio())
    generator = np.random.default_rng(0)
    expected = {}
    with torch.no_grad():
        for name, scores in router.scores().items():
            drawn = generator.standard_normal(scores.shape).astype(np.float32)
            drawn[0, 0] = 0.0  # which is not above 0
            scores.copy_(torch.from_numpy(drawn))
            expected[name] = drawn > 0
    share = router.refresh()
    flipped = sum((before[n] != m).sum() for n, m in expected.items())
    total = sum(mask.size for mask in expected.values())
    assert share == pytest.approx(flipped / total)
    for row in router.report():
        kept = expected[row["name"]]
        assert np.array_equal(router.masks()[row["name"]].numpy(), kept)
        assert row["removed"] == kept.size - kept.sum()
    assert (output(encoder, make_audio()) - base).abs().max() > 0.05


@pytest.mark.parametrize("surrogate", ["identity", "sigmoid"])
def test_gradient_has_no_sign_of_the_score(surrogate):
    generator = torch.Generator().manual_seed(1)
    weight, scores, upstream = torch.randn(3, 6, 5, generator=generator)
    scores.requires_grad_()
    masked = masked_weight(
        weight, scores, scores > 0, surrogate, rule="positive"
    )
    masked.backward(upstream)
    expected = (weight * upstream).numpy()
    if surrogate == "sigmoid":
        gate = 1 / (1 + np.exp(-scores.detach().numpy()))
        expected = expected * gate * (1 - gate)
    np.testing.assert_allclose(scores.grad.numpy(), expected, rtol=1e-5)


def test_training_finds_a_planted_mask_and_its_sparsity():
    """A frozen matrix; targets of the same matrix with 70% of it removed."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    linear = encoder.layers[0].linear1
    planted = torch.rand(linear.weight.shape) > 0.7
    wanted = (linear.weight * planted).detach()
    router = Router(encoder, ["layers.0.linear1"], 0.0, rule="positive")
    optimizer = torch.optim.Adam(router.scores().values(), lr=3e-3)
    for step in range(400):
        inputs = torch.randn(64, 16)
        error = nn.functional.linear(inputs, linear.weight - wanted)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
        router.refresh(step)
    (mask,) = router.masks().values()
    assert (mask == planted).float().mean() > 0.97
    assert router.sparsity() == pytest.approx(0.7, abs=0.04)


def test_a_checkpoint_brings_the_masks_back():
    method = MaskTuning(**FREE, sparsity=0.3)
    encoder = make_encoder()
    method.prepare(encoder)
    train(method.router, encoder, 3)
    state = {name: value.clone() for name, value in method.state_dict().items()}
    other = MaskTuning(**FREE, sparsity=0.3)
    other.prepare(make_encoder())
    other.load_state_dict(state)
    assert other.router.sparsity() == method.router.sparsity() != 0.3
    assert other.router.refresh() == 0.0  # nothing flips: masks fit scores
    assert other.describe()["rule"] == "positive"


def test_nan_is_refused():
    router = Router(make_encoder(), **FREE)
    name, scores = next(iter(router.scores().items()))
    with torch.no_grad():
        scores[0, 0] = torch.nan
    with pytest.raises(VerificationError, match=f"{name}: a score is NaN"):
        router.refresh()


@pytest.mark.parametrize(
    "settings",
    [
        {"pattern": "2:4", "sparsity": 0.5},
        {"pattern": "structured"},
        {"scope": "global"},
    ],
)
def test_what_needs_a_ranking_is_refused(settings):
    encoder = make_encoder()
    before = list(encoder.state_dict())
    with pytest.raises(SettingError, match="rule positive"):
        Router(encoder, **{**FREE, **settings})
    assert list(encoder.state_dict()) == before
    with pytest.raises(SettingError, match="mask_rule|rule"):
        Router(encoder, "all", rule="largest")


def test_there_is_no_share_to_change():
    router = Router(make_encoder(), **FREE)
    with pytest.raises(SettingError, match="scores alone decide"):
        router.set_sparsity(0.3)
