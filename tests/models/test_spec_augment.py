"""SpanMasking: counts and places against the rule, and what it leaves alone."""

import pytest
import torch

from s3router.errors import SettingError
from s3router.models.spec_augment import SpanMasking, random_spans

FILL = torch.full((8,), 7.0)


def spans_of(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of True."""
    runs, current = [], 0
    for value in [*row.tolist(), False]:
        if value:
            current += 1
        elif current:
            runs.append(current)
            current = 0
    return runs


def test_one_span_at_a_time_has_the_right_length_and_place():
    torch.manual_seed(0)
    rows = random_spans(torch.full((4000,), 50), 60, prob=0.2, length=10)
    assert not rows[:, 50:].any()
    runs = [spans_of(row) for row in rows]
    # 0.2 * 50 / 10 = 1 span each, never rounded away.
    assert all(run == [10] for run in runs)
    starts = rows.int().argmax(dim=1)
    counts = torch.bincount(starts, minlength=41)
    assert len(counts) == 41
    # Uniform over the 41 places where it fits: chi-squared, 40 degrees.
    expected = 4000 / 41
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < 80


def test_number_of_spans_is_rounded_at_random():
    torch.manual_seed(0)
    # 0.65 * 10 * 3 / 10 = 1.95 spans of length 1 to count them exactly.
    rows = random_spans(torch.full((20000,), 3), 3, prob=0.65, length=1)
    counts = rows.sum(dim=1)
    assert set(counts.tolist()) == {1, 2}
    assert counts.float().mean().item() == pytest.approx(1.95, abs=0.01)


def test_share_masked_is_that_of_the_papers_setting():
    # prob 0.65, length 10: 65 spans on 1000 frames. A frame is free if none
    # of the 10 starts that reach it is among 65 drawn of 991.
    torch.manual_seed(0)
    rows = random_spans(torch.full((400,), 1000), 1000, 0.65, 10)
    free = 1.0
    for i in range(10):
        free *= (991 - 65 - i) / (991 - i)
    inner = rows[:, 10:990].float().mean().item()
    assert inner == pytest.approx(1 - free, abs=0.005)


def test_each_clip_draws_by_its_own_length():
    torch.manual_seed(0)
    sizes = torch.tensor([100, 400, 1000] * 300)
    rows = random_spans(sizes, 1000, 0.65, 10)
    for size in (100, 400, 1000):
        share = rows[sizes == size].float().sum(dim=1).mean() / size
        assert share.item() == pytest.approx(0.49, abs=0.02)


def test_spans_overlap_but_never_coincide():
    torch.manual_seed(0)
    # 4 of 5 places: without repetition at least 4 frames are masked.
    rows = random_spans(torch.full((500,), 5), 5, prob=0.8, length=1)
    assert (rows.sum(dim=1) == 4).all()


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_a_clip_not_longer_than_a_span_is_left_alone(size):
    rows = random_spans(torch.tensor([size]), 30, 5.0, 10, min_spans=2)
    assert not rows.any()


def test_minimum_of_spans():
    torch.manual_seed(0)
    rows = random_spans(torch.full((200,), 100), 100, 0.0, 10, min_spans=2)
    assert all(sum(spans_of(row)) in range(11, 21) for row in rows)
    short = random_spans(torch.full((50,), 11), 11, 0.0, 10, min_spans=2)
    # Only two places exist: both are taken, and no more.
    assert short.all()


def test_masked_frames_become_the_embedding_and_padding_stays():
    torch.manual_seed(0)
    features = torch.randn(6, 80, 8)
    frames = torch.tensor([80, 70, 50, 33, 11, 3])
    masked = SpanMasking(0.65, 10)(features, frames, FILL)
    changed = (masked != features).any(dim=2)
    assert (masked[changed] == FILL).all()
    assert changed[0].any()
    for row, count in enumerate(frames):
        assert not changed[row, count:].any()


def test_channels_are_zeroed_in_spans_inside_the_clip_only():
    torch.manual_seed(0)
    features = torch.rand(50, 20, 64) + 1.0
    frames = torch.full((50,), 12)
    masking = SpanMasking(0.0, channel_prob=0.25, channel_length=8)
    masked = masking(features, frames, torch.zeros(64))
    zero = masked == 0
    assert not zero[:, 12:].any()
    # The same channels in every frame of a clip.
    assert (zero[:, :12] == zero[:, :1]).all()
    assert all(sum(spans_of(row)) in range(9, 17) for row in zero[:, 0])
    assert torch.equal(masked[~zero], features[~zero])


def test_evaluation_mode_and_zero_probability_change_nothing():
    features, frames = torch.randn(2, 50, 8), torch.tensor([50, 20])
    masking = SpanMasking(0.65, 10, 0.5, 2)
    assert masking.eval()(features, frames, FILL) is features
    assert torch.equal(SpanMasking(0.0)(features, frames, FILL), features)


def test_seed_reproduces_and_input_is_not_changed():
    features, frames = torch.randn(2, 50, 8), torch.tensor([50, 40])
    before = features.clone()
    masking = SpanMasking(0.65, 10, 0.5, 2)
    torch.manual_seed(4)
    first = masking(features, frames, FILL)
    torch.manual_seed(4)
    assert torch.equal(masking(features, frames, FILL), first)
    assert not torch.equal(masking(features, frames, FILL), first)
    assert torch.equal(features, before)


def test_gradient_flows_through_what_is_not_masked():
    features = torch.randn(1, 50, 8, requires_grad=True)
    torch.manual_seed(0)
    masked = SpanMasking(0.65, 10)(features, torch.tensor([50]), FILL)
    masked.sum().backward()
    free = (masked == features).all(dim=2)
    assert torch.equal(features.grad.bool().all(dim=2), free)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_prob": -0.1}, "time_prob is -0.1"),
        ({"time_prob": float("nan")}, "time_prob is nan"),
        ({"channel_prob": -1.0}, "channel_prob is -1.0"),
        ({"time_length": 0}, "time_length is 0"),
        ({"channel_length": -3}, "channel_length is -3"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        SpanMasking(**settings)
