"""A layer with a mask computes what a plain layer of weight x mask does."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from s3router.masks.attach import attach, detach
from s3router.masks.parametrization import MaskedWeight, written_outside_torch

OUT, IN = 5, 7


def layer(
    bias=True, surrogate="identity", layout="entries", rule="top", tuned=False
):
    torch.manual_seed(3)
    linear = nn.Linear(IN, OUT, bias=bias)
    linear.weight.requires_grad_(tuned)
    groups = {"entries": (OUT, IN), "rows": (OUT,), "columns": (IN,)}[layout]
    scores = nn.Parameter(torch.randn(groups))
    mask = MaskedWeight(scores, (OUT, IN), surrogate, layout, rule)
    mask.mask.copy_(torch.rand(OUT, IN) > 0.4)
    attach(linear, "fc", mask)
    return linear, mask


def gradients(linear, mask, inputs, forward):
    """Return output and all gradients, of a loss that is not linear."""
    linear.zero_grad()
    inputs = inputs.clone().requires_grad_(True)
    output = forward(inputs)
    output.float().square().sum().backward()
    weight = linear.parametrizations.weight.original
    bias = None if linear.bias is None else linear.bias.grad
    found = [output, inputs.grad, mask.scores.grad, weight.grad, bias]
    return [None if each is None else each.detach().clone() for each in found]


@pytest.mark.parametrize("shape", [(IN,), (4, IN), (2, 3, IN)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False},
        {"surrogate": "sigmoid"},
        {"rule": "positive"},
        {"tuned": True},
        {"layout": "columns"},
        {"layout": "rows"},
    ],
    ids=str,
)
def test_output_and_gradients_are_those_of_the_weight_that_is_read(
    shape, settings
):
    linear, mask = layer(**settings)
    inputs = torch.randn(shape)
    own = gradients(linear, mask, inputs, linear)
    read = gradients(
        linear,
        mask,
        inputs,
        lambda x: functional.linear(x, linear.weight, linear.bias),
    )
    for ours, reference in zip(own, read, strict=True):
        assert (ours is None) == (reference is None)
        if ours is not None:
            torch.testing.assert_close(ours, reference)


def test_the_gradient_of_scores_by_hand():
    linear, mask = layer()
    inputs = torch.randn(4, IN)
    linear(inputs).sum().backward()
    weight = linear.parametrizations.weight.original
    of_masked = inputs.sum(0).expand(OUT, IN)  # of a sum of outputs
    expected = mask.scores.sign() * weight * of_masked
    torch.testing.assert_close(mask.scores.grad, expected)


def test_weight_times_mask_is_not_kept_until_backward():
    linear, mask = layer()
    kept = []
    with saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        linear(torch.randn(4, IN, requires_grad=True))
    own = {
        each.data_ptr()
        for each in (
            mask.scores,
            mask.mask,
            linear.parametrizations.weight.original,
        )
    }
    sizes = [x.numel() for x in kept if x.data_ptr() not in own]
    assert sizes == [4 * IN]  # the input
    assert len(kept) == 4


def test_layers_of_one_shape_do_not_disturb_each_other():
    first, _ = layer()
    second, _ = layer()
    with torch.no_grad():
        second.parametrizations.weight.original.mul_(-3)
    inputs = torch.randn(4, IN, requires_grad=True)
    (first(inputs) * 2 + second(inputs)).sum().backward()
    expected = (2 * first.weight + second.weight).sum(0).expand(4, IN)
    torch.testing.assert_close(inputs.grad, expected.detach())


@pytest.mark.parametrize("settings", [{}, {"tuned": True}], ids=str)
def test_autocast_computes_in_its_dtype(settings):
    linear, mask = layer(**settings)
    inputs = torch.randn(4, IN)

    def forward(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return linear(inputs)

    def read(inputs):
        with torch.autocast("cpu", torch.bfloat16):
            return functional.linear(inputs, linear.weight, linear.bias)

    own = gradients(linear, mask, inputs, forward)
    reference = gradients(linear, mask, inputs, read)
    assert own[0].dtype == torch.bfloat16
    for ours, other in zip(own, reference, strict=True):
        if ours is not None:
            assert ours.dtype == other.dtype
            torch.testing.assert_close(ours, other)


def test_a_mask_that_changed_before_backward_is_refused():
    linear, mask = layer()
    loss = linear(torch.ones(1, IN, requires_grad=True)).sum()
    mask.mask.numpy()[0] = False
    written_outside_torch(mask.mask)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_frozen_scores_get_no_gradient_and_keep_no_input():
    linear, mask = layer()
    mask.scores.requires_grad_(False)
    inputs = torch.randn(4, IN, requires_grad=True)
    linear(inputs).sum().backward()
    assert mask.scores.grad is None
    expected = linear.weight.sum(0).expand(4, IN)
    torch.testing.assert_close(inputs.grad, expected)


def test_half_precision_and_double_run():
    for dtype in (torch.float64, torch.bfloat16):
        linear, mask = layer()
        linear.to(dtype)
        mask.scores.data = mask.scores.data.float()
        inputs = torch.randn(4, IN, dtype=dtype, requires_grad=True)
        output = linear(inputs)
        torch.testing.assert_close(
            output, functional.linear(inputs, linear.weight, linear.bias)
        )
        output.sum().backward()
        assert inputs.grad.dtype == dtype
        assert mask.scores.grad.dtype == torch.float32


def test_copies_compute_with_their_own_mask():
    linear, mask = layer()
    inputs = torch.randn(4, IN)
    before = linear(inputs)
    other = copy.deepcopy(linear)
    other.parametrizations.weight[0].mask.fill_(False)
    assert torch.equal(linear(inputs), before)
    assert torch.equal(other(inputs), other.bias.expand(4, OUT))


@pytest.mark.parametrize("fold", [True, False])
def test_detaching_leaves_a_plain_layer(fold):
    linear, mask = layer()
    inputs = torch.randn(4, IN)
    masked = linear(inputs)
    detach(linear, fold)
    assert type(linear) is nn.Linear
    assert torch.allclose(linear(inputs), masked) == fold


def test_a_layer_with_a_forward_of_its_own_keeps_it():
    class Doubled(nn.Linear):
        def forward(self, inputs):
            return 2 * super().forward(inputs)

    torch.manual_seed(0)
    linear = Doubled(IN, OUT)
    scores = nn.Parameter(torch.randn(OUT, IN))
    mask = MaskedWeight(scores, (OUT, IN))
    attach(linear, "fc", mask)
    mask.mask[0] = False
    inputs = torch.randn(4, IN)
    expected = 2 * functional.linear(inputs, linear.weight, linear.bias)
    torch.testing.assert_close(linear(inputs), expected)


def test_parallel_threads_do_not_share_memory():
    """Two threads through layers of one shape, as a server would."""
    from concurrent.futures import ThreadPoolExecutor

    layers = []
    for factor in range(1, 5):
        linear, _ = layer()
        with torch.no_grad():
            linear.parametrizations.weight.original.mul_(factor)
        layers.append(linear)
    inputs = torch.randn(256, IN)
    expected = [linear(inputs) for linear in layers]

    def run(index):
        with torch.no_grad():
            return all(
                torch.equal(layers[index](inputs), expected[index])
                for _ in range(200)
            )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))
