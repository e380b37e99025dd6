"""The gradient of the masked weight against formulas and autograd."""

import numpy as np
import pytest
import torch

from s3router.masks.straight_through import masked_weight

OUT, IN = 12, 8


def tensors(scores_shape=(OUT, IN), seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OUT, IN, generator=generator)
    scores = torch.randn(scores_shape, generator=generator)
    mask = torch.rand(OUT, IN, generator=generator) > 0.4
    upstream = torch.randn(OUT, IN, generator=generator)
    return weight, scores.requires_grad_(), mask, upstream


def test_forward_is_the_product_bit_for_bit():
    weight, scores, mask, _ = tensors()
    masked = masked_weight(weight, scores, mask)
    expected = np.where(mask.numpy(), weight.numpy(), 0)
    assert np.array_equal(masked.detach().numpy(), expected)
    everything = torch.ones_like(mask)
    assert torch.equal(masked_weight(weight, scores, everything), weight)


def test_gradient_is_the_rule_of_the_paper():
    weight, scores, mask, upstream = tensors()
    masked_weight(weight, scores, mask).backward(upstream)
    expected = np.sign(scores.detach().numpy()) * weight.numpy()
    expected = expected * upstream.numpy()
    np.testing.assert_allclose(scores.grad.numpy(), expected, rtol=1e-6)
    # Removed entries learn too, or none could ever come back.
    assert (scores.grad[~mask] != 0).all()


def test_gradient_is_that_of_abs_and_identity_in_autograd():
    weight, scores, mask, upstream = tensors()
    masked_weight(weight, scores, mask).backward(upstream)
    other = scores.detach().clone().requires_grad_()
    through = other.abs() + (mask.float() - other.abs()).detach()
    (weight * through).backward(upstream)
    torch.testing.assert_close(scores.grad, other.grad)


def test_sigmoid_surrogate_in_autograd():
    weight, scores, mask, upstream = tensors()
    masked_weight(weight, scores, mask, "sigmoid").backward(upstream)
    other = scores.detach().clone().requires_grad_()
    gate = torch.sigmoid(other.abs())
    through = gate + (mask.float() - gate).detach()
    (weight * through).backward(upstream)
    torch.testing.assert_close(scores.grad, other.grad)


@pytest.mark.parametrize("surrogate", ["identity", "sigmoid"])
@pytest.mark.parametrize("layout, groups", [("rows", 3), ("columns", 4)])
def test_groups_get_the_sum_in_autograd(layout, groups, surrogate):
    weight, scores, mask, upstream = tensors((groups,))
    masked_weight(weight, scores, mask, surrogate, layout).backward(upstream)
    other = scores.detach().clone().requires_grad_()
    gate = other.abs()
    if surrogate == "sigmoid":
        gate = torch.sigmoid(gate)
    if layout == "rows":
        wide = gate.repeat_interleave(OUT // groups)[:, None].expand(OUT, IN)
    else:
        wide = gate.repeat_interleave(IN // groups)[None, :].expand(OUT, IN)
    through = wide + (mask.float() - wide).detach()
    (weight * through).backward(upstream)
    torch.testing.assert_close(scores.grad, other.grad)


def test_a_score_of_zero_has_no_gradient():
    weight, scores, mask, upstream = tensors()
    with torch.no_grad():
        scores[0] = 0
    masked_weight(weight, scores, mask).backward(upstream)
    assert (scores.grad[0] == 0).all() and (scores.grad[1:] != 0).all()


def test_pieces_make_one_whole(monkeypatch):
    from s3router.masks import straight_through

    monkeypatch.setattr(straight_through, "_PIECE", 7)
    test_gradient_is_the_rule_of_the_paper()


def test_a_trained_weight_gets_the_gradient_of_what_is_kept():
    weight, scores, mask, upstream = tensors()
    weight.requires_grad_()
    masked_weight(weight, scores, mask).backward(upstream)
    assert torch.equal(weight.grad, upstream * mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_keep_float_scores(dtype):
    weight, scores, mask, upstream = tensors()
    masked = masked_weight(weight.to(dtype), scores, mask)
    assert masked.dtype == dtype
    masked.backward(upstream.to(dtype))
    assert scores.grad.dtype == torch.float32
    expected = scores.detach().sign() * weight.to(dtype) * upstream.to(dtype)
    torch.testing.assert_close(
        scores.grad, expected.float(), rtol=0.02, atol=0.02
    )


def test_only_what_lives_anyway_is_saved():
    weight, scores, mask, _ = tensors()
    seen = []

    def pack(tensor):
        seen.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        masked_weight(weight, scores, mask)
    assert set(seen) == {weight.data_ptr(), scores.data_ptr()}
