"""Scores in bfloat16: half the memory, the same counts, the same rule."""

import copy

import numpy as np
import pytest
import torch
from speech_models import make_audio, make_encoder, output, train

from s3router.errors import MismatchError, SettingError
from s3router.masks.router import Router


def removed_by_hand(score, count):
    """Return the mask of a sort: of equal |score| the first ones go."""
    bits = score.detach().float().abs().numpy().reshape(-1)
    keep = np.ones(bits.size, bool)
    keep[np.argsort(bits, kind="stable")[:count]] = False
    return torch.from_numpy(keep).view(score.shape)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_counts_stay_exact_in_training_however_many_are_equal(scope):
    encoder = make_encoder("wav2vec2").train()
    router = Router(encoder, "all", 0.3, scope, score_dtype="bfloat16")
    train(router, encoder, steps=3)
    scores, masks = router.scores(), router.masks()
    assert {s.dtype for s in scores.values()} == {torch.bfloat16}
    total = sum(mask.numel() for mask in masks.values())
    gone = sum(int((~mask).sum()) for mask in masks.values())
    if scope == "global":
        assert gone == round(0.3 * total)
        return
    for name, score in scores.items():
        expected = removed_by_hand(score, round(0.3 * score.numel()))
        assert torch.equal(masks[name], expected), name


@pytest.mark.parametrize("settings", [{}, {"surrogate": "sigmoid"}], ids=str)
def test_the_gradient_is_that_of_float32_scores_rounded_once(settings):
    audio = make_audio()
    found = []
    for dtype in ("float32", "bfloat16"):
        encoder = make_encoder("wav2vec2").eval()
        router = Router(encoder, "all", 0.3, score_dtype=dtype, **settings)
        scores = router.scores()
        for index, score in enumerate(scores.values()):
            # Values that bfloat16 has, so that both select the same.
            generator = torch.Generator().manual_seed(index)
            drawn = torch.randn(score.shape, generator=generator)
            score.data.copy_(drawn.bfloat16())
        router.refresh()
        output(encoder, audio).square().sum().backward()
        found.append({name: score.grad for name, score in scores.items()})
    for name, reference in found[0].items():
        assert found[1][name].dtype == torch.bfloat16
        torch.testing.assert_close(
            found[1][name].float(), reference.bfloat16().float()
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"pattern": "2:4", "sparsity": 0.5},
        {"pattern": "structured", "sparsity": 0.5},
        {"rule": "positive", "sparsity": 0.3},
    ],
    ids=str,
)
def test_every_pattern_and_rule_trains(settings):
    encoder = make_encoder("wav2vec2").train()
    router = Router(encoder, "all", score_dtype="bfloat16", **settings)
    before = copy.deepcopy(router.masks())
    train(router, encoder, steps=3)
    after = router.masks()
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_a_state_of_the_other_dtype_is_refused():
    one = Router(make_encoder("wav2vec2"), score_dtype="bfloat16")
    other = Router(make_encoder("wav2vec2"))
    with pytest.raises(MismatchError, match="bfloat16"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(SettingError, match="score_dtype"):
        Router(make_encoder("wav2vec2"), score_dtype="float16")
