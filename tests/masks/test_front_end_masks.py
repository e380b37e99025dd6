"""Channels of the front end: the least ones go, the rest stays as it is."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from s3router.errors import SettingError
from s3router.masks.apply import apply_masks
from s3router.masks.front_end import front_end_masks

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (12, 10, 8),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
CONV = "feature_extractor.conv_layers.{}.conv"


def encoder(**settings: object) -> Wav2Vec2Model:
    torch.manual_seed(0)
    return Wav2Vec2Model(Wav2Vec2Config(**SIZES, **settings)).eval()


def test_the_channels_of_least_magnitude_go():
    model = encoder()
    masks = front_end_masks(model, 0.5)
    assert list(masks) == [CONV.format(i) for i in range(3)]
    weights = [model.get_submodule(n).weight.detach().numpy() for n in masks]
    one, two, three = masks.values()
    for before, after, i in ((one, two, 0), (two, three, 1)):
        gone = ~before.any(axis=(1, 2))
        np.testing.assert_array_equal(gone, ~after.any(axis=(0, 2)))
        size = [
            np.sum(weights[i][c].astype("f8") ** 2)
            + np.sum(weights[i + 1][:, c].astype("f8") ** 2)
            for c in range(len(before))
        ]
        assert gone.sum() == len(before) // 2
        assert max(np.array(size)[gone]) < min(np.array(size)[~gone])
    assert three.any(axis=(1, 2)).all(), "of the last layer all are kept"
    rows, columns = two.any(axis=(1, 2)), two.any(axis=(0, 2))
    np.testing.assert_array_equal(
        two, np.broadcast_to((rows[:, None] & columns)[..., None], two.shape)
    )


def test_masks_are_put_on_convs():
    model, masks = encoder(), front_end_masks(encoder(), 0.3)
    before = [model.get_submodule(n).weight.detach().clone() for n in masks]
    apply_masks(model, masks)
    for (name, mask), weight in zip(masks.items(), before, strict=True):
        after = model.get_submodule(name).weight
        assert torch.equal(after, weight * torch.from_numpy(mask))


def test_a_layer_norm_is_refused():
    large = encoder(feat_extract_norm="layer", do_stable_layer_norm=True)
    with pytest.raises(SettingError, match="layers.0 of this encoder has a La"):
        front_end_masks(large, 0.5)
    assert front_end_masks(large, 0.0) == {}


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan"), "half"])
def test_shares_that_cannot_be(share):
    with pytest.raises(SettingError, match="front_end_sparsity"):
        front_end_masks(encoder(), share)
