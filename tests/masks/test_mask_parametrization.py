"""One mask on one linear layer: what is read, versions, refusals."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from s3router.errors import SettingError
from s3router.masks.attach import attach, detach
from s3router.masks.parametrization import (
    MaskedWeight,
    written_outside_torch,
)


def masked_linear(seed=0):
    torch.manual_seed(seed)
    linear = nn.Linear(6, 4)
    linear.weight.requires_grad_(False)
    scores = nn.Parameter(torch.randn(4, 6))
    mask = MaskedWeight(scores, (4, 6))
    attach(linear, "fc", mask)
    return linear, mask


def test_masked_entries_are_zero_and_the_rest_is_untouched():
    linear, mask = masked_linear()
    original = linear.parametrizations.weight.original.clone()
    mask.mask[1, 2] = False
    assert linear.weight[1, 2] == 0
    kept = mask.mask
    assert torch.equal(linear.weight[kept], original[kept])


def test_changes_of_mask_and_weight_show_at_once():
    linear, mask = masked_linear()
    assert linear.weight.count_nonzero() == 24
    mask.mask[0] = False
    assert linear.weight.count_nonzero() == 18
    with torch.no_grad():
        linear.parametrizations.weight.original.fill_(3.0)
    assert linear.weight.sum().item() == 3 * 18
    mask.mask.numpy()[1] = False
    written_outside_torch(mask.mask)
    assert linear.weight.sum().item() == 3 * 12


def test_a_new_tensor_as_weight_is_seen():
    linear, _ = masked_linear()
    linear.parametrizations.weight.original.data = torch.full((4, 6), 2.0)
    assert linear.weight.sum().item() == 48


def test_copies_are_independent():
    linear, mask = masked_linear()
    assert linear.weight.count_nonzero() == 24
    for other in (
        copy.deepcopy(mask),
        pickle.loads(pickle.dumps(mask)),
    ):
        weight = torch.ones(4, 6)
        other.mask[0] = False
        assert other(weight).sum().item() == 18
        assert mask(weight).sum().item() == 24


def test_other_dtypes_and_layouts_of_the_weight():
    _, mask = masked_linear()
    mask.mask[0] = False
    for weight in (
        torch.ones(4, 6, dtype=torch.float64),
        torch.ones(4, 6, dtype=torch.bfloat16),
        torch.ones(6, 4).t(),
    ):
        assert mask(weight).dtype == weight.dtype
        assert mask(weight).sum().item() == 18


def test_detach_leaves_a_plain_layer():
    for fold in (True, False):
        linear, mask = masked_linear()
        original = linear.parametrizations.weight.original.clone()
        mask.mask[0] = False
        detach(linear, fold)
        assert type(linear) is nn.Linear
        assert isinstance(linear.weight, nn.Parameter)
        expected = original * mask.mask if fold else original
        assert torch.equal(linear.weight, expected)
        assert list(linear.state_dict()) == ["bias", "weight"] or list(
            linear.state_dict()
        ) == ["weight", "bias"]


def test_a_second_parametrization_is_refused_by_name():
    linear, _ = masked_linear()
    other = MaskedWeight(nn.Parameter(torch.ones(4, 6)), (4, 6))
    with pytest.raises(SettingError, match="fc.weight already.*MaskedWeight"):
        attach(linear, "fc", other)
    normed = parametrizations.weight_norm(nn.Linear(6, 4))
    with pytest.raises(SettingError, match="WeightNorm"):
        attach(normed, "fc", other)
