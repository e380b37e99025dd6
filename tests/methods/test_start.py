"""Masks of another subnetwork that methods start from."""

import numpy as np
import pytest
import torch
from method_encoders import make_encoder, save, train
from numpy_rules import (
    RULES,
    assert_masks,
    build_and_prepare,
    formula_encoder,
    weights_of,
)

from s3router.errors import MismatchError, SettingError
from s3router.formats.subnetwork import Subnetwork


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_of_another_encoder_is_refused(name, tmp_path):
    encoder = make_encoder(seed=1)
    full = build_and_prepare("full", encoder)
    folder = save(full, tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="was made for the encoder"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_that_masks_other_targets_is_refused(name, tmp_path):
    other = build_and_prepare("magnitude", make_encoder(), "attention")
    folder = save(other, tmp_path / "attention")
    with pytest.raises(MismatchError, match="masks other targets"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))
    # Fewer targets than it masks are there.
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    folder = save(sparse, tmp_path / "all")
    build_and_prepare(name, make_encoder(), "attention", start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_sparser_than_asked_for_is_refused(name, tmp_path):
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    start = str(save(sparse, tmp_path / "half"))
    with pytest.raises(SettingError, match="at least 0.5"):
        build_and_prepare(name, make_encoder(), sparsity=0.4, start_mask=start)
    method = build_and_prepare(
        name, make_encoder(), sparsity=0.6, start_mask=start
    )
    for key, mask in method.masks().items():
        assert not (mask & ~sparse.masks()[key]).any()


def with_front_end(subnetwork_folder, folder):
    """Return the folder of a copy that also lacks channels in front."""
    loaded = Subnetwork.load(subnetwork_folder)
    conv = np.ones((4, 4, 3), bool)
    conv[:2] = False
    loaded.masks["feature_extractor.conv_layers.0.conv"] = conv
    loaded.save(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_masks_of_the_front_end_are_no_masks_of_the_targets(name, tmp_path):
    encoder = make_encoder()
    full = build_and_prepare("full", encoder)
    train(encoder, full, steps=3)
    plain = save(full, tmp_path / "full")
    start = with_front_end(plain, tmp_path / "front")
    assert Subnetwork.load(start).sparsity() == 0
    masks = [
        build_and_prepare(
            name, make_encoder(), sparsity=0.4, start_mask=str(folder)
        ).masks()
        for folder in (plain, start)
    ]
    for key, mask in masks[0].items():
        assert torch.equal(mask, masks[1][key])
    with pytest.raises(SettingError, match="has no mask; it was made by"):
        build_and_prepare("mask_tuning", make_encoder(), start_mask=start)


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_without_weights_and_masks_is_no_start(name, tmp_path):
    folder = save(
        build_and_prepare("head_only", make_encoder()), tmp_path / "h"
    )
    with pytest.raises(SettingError, match="neither weights nor masks"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_mask_tuning_takes_a_mask_of_its_scope_over(scope, tmp_path):
    """Whole, though inputs differ from matrix to matrix."""
    start = build_and_prepare(
        "magnitude", formula_encoder(), sparsity=0.4, scope=scope
    )
    folder = save(start, tmp_path / scope, encoder=formula_encoder())
    mine = build_and_prepare(
        "mask_tuning",
        formula_encoder(),
        sparsity=0.4,
        scope=scope,
        init="kaiming_uniform",
        start_mask=str(folder),
    ).masks()
    for name, mask in start.masks().items():
        assert torch.equal(mask, mine[name])


def test_one_ranking_over_all_cannot_start_in_some_blocks(tmp_path):
    start = build_and_prepare("magnitude", make_encoder(), scope="global")
    with pytest.raises(SettingError, match="start_layers: with scope global"):
        build_and_prepare(
            "mask_tuning",
            make_encoder(),
            scope="global",
            start_layers=1,
            start_mask=str(save(start, tmp_path / "x")),
        )


@pytest.mark.parametrize("scope", RULES)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_scores_by_rank_start_from_the_magnitude_mask(scope, share):
    encoder = formula_encoder()
    method = build_and_prepare(
        "mask_tuning", encoder, sparsity=share, scope=scope
    )
    names = list(method.masks())
    expected = RULES[scope](weights_of(formula_encoder(), names), share)
    assert_masks(method, expected)
