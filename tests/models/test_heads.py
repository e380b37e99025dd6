"""Heads: what they compute, and its weights to and from a subnetwork."""

import numpy as np
import pytest
import torch

from s3router.errors import MismatchError
from s3router.models.heads import HEADS, ClassificationHead, CTCHead


def test_logits_are_the_linear_map():
    head = CTCHead(6, 4).eval()
    hidden = torch.randn(2, 5, 6)
    weights = head.to_numpy()
    expected = hidden.numpy() @ weights["weight"].T + weights["bias"]
    np.testing.assert_allclose(
        head(hidden).detach().numpy(), expected, atol=1e-6
    )


def test_start_is_nearly_uniform():
    torch.manual_seed(0)
    head = CTCHead(768, 40)
    probabilities = head(torch.randn(100, 768)).softmax(dim=1)
    # exp(+-4 * 0.02 * sqrt(768)) apart at most, and no bias.
    assert 1 / 400 < probabilities.min() < probabilities.max() < 0.3
    assert not head.linear.bias.any()


def test_dropout_in_training_only():
    head = CTCHead(64, 4, dropout=0.5)
    hidden = torch.ones(1, 64)
    assert not torch.equal(head(hidden), head(hidden))
    head.eval()
    assert torch.equal(head(hidden), head(hidden))


def test_weights_go_through_a_subnetwork_unchanged():
    torch.manual_seed(0)
    head = CTCHead(6, 4)
    stored = head.to_numpy()
    assert {v.dtype for v in stored.values()} == {np.dtype("float32")}
    twin = CTCHead.from_numpy(stored)
    assert torch.equal(twin.linear.weight, head.linear.weight)
    assert torch.equal(twin.linear.bias, head.linear.bias)
    # A copy: training on does not reach what was stored.
    with torch.no_grad():
        head.linear.weight.zero_()
        twin.linear.bias.add_(1)
    assert stored["weight"].any()
    assert not stored["bias"].any()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": np.zeros((4, 6))}, "stored head has .'weight'.$"),
        ({"weight": np.zeros((5, 6)), "bias": np.zeros(5)}, r"\(5, 6\)"),
        ({"weight": np.zeros((4, 6)), "bias": np.zeros(3)}, r"bias .*\(3,\)"),
    ],
)
def test_weights_of_another_head_are_refused_whole(weights, message):
    head = CTCHead(6, 4)
    before = head.to_numpy()
    with pytest.raises(MismatchError, match=message):
        head.load_numpy(weights)
    after = head.to_numpy()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_no_weight_at_all():
    with pytest.raises(MismatchError, match="no 'weight'"):
        CTCHead.from_numpy({})


def test_classes_are_those_of_the_mean_over_valid_frames():
    torch.manual_seed(0)
    head = HEADS["classification"](6, 4).eval()
    hidden, frames = torch.randn(3, 5, 6), [5, 2, 1]
    weights = head.to_numpy()
    spoilt = hidden.clone()
    for row, count in enumerate(frames):
        spoilt[row, count:] = float("nan")
    got = head(spoilt, torch.tensor(frames)).detach().numpy()
    for row, count in enumerate(frames):
        pooled = hidden[row, :count].numpy().mean(0)
        expected = weights["weight"] @ pooled + weights["bias"]
        np.testing.assert_allclose(got[row], expected, atol=1e-6)
    alone = head(hidden[:1]).detach().numpy()
    np.testing.assert_allclose(alone, got[:1], atol=1e-6)


def test_a_classification_head_is_stored_as_a_ctc_head_is():
    head = ClassificationHead(6, 4)
    again = ClassificationHead.from_numpy(head.to_numpy())
    assert type(again) is ClassificationHead
    hidden = torch.randn(2, 5, 6)
    torch.testing.assert_close(again(hidden), head(hidden))
