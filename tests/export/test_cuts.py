"""What masks remove whole, found from the masks alone."""

import numpy as np
import pytest
from structured import CONV, structured_masks
from subnetworks import make_encoder

from s3router.errors import SettingError
from s3router.export.cuts import find_cuts
from s3router.models.encoder import load_encoder

LAYER = "encoder.layers.{}"


@pytest.fixture(scope="module")
def model(encoder_folder):
    """Return the Hugging Face model: 2 blocks, 4 heads, 64 channels."""
    return load_encoder(str(encoder_folder)).model


@pytest.fixture
def masks(encoder_folder):
    """Return masks with 3 and 1 heads, 33 and 64 channels."""
    return structured_masks(encoder_folder, [3, 1], [33, 64])


def test_heads_and_channels_are_found(model, masks):
    cuts = find_cuts(model, masks)
    for i, (heads, channels) in enumerate([(3, 33), (1, 64)]):
        q = masks[f"{LAYER.format(i)}.attention.q_proj"]
        kept = [h for h in range(4) if q[8 * h].all()]
        assert cuts.heads[i].tolist() == kept and len(kept) == heads
        fc1 = masks[f"{LAYER.format(i)}.feed_forward.intermediate_dense"]
        kept = [c for c in range(64) if fc1[c, 0]]
        assert cuts.channels[i].tolist() == kept and len(kept) == channels
    assert cuts.describe() == {
        "form": "structured",
        "heads_kept": [3, 1],
        "channels_kept": [33, 64],
        "front_end_kept": [],
    }


def test_arrays_are_taken_and_widened(model, masks):
    cuts, state = find_cuts(model, masks), model.state_dict()
    for owner, mask in masks.items():
        name = f"{owner}.weight"
        weight = state[name].numpy() * mask
        small = cuts.take(name, weight)
        assert small.size == mask.sum() and (small != 0).all()
        np.testing.assert_array_equal(cuts.widen(name, small), weight)
    bias = f"{LAYER.format(0)}.feed_forward.intermediate_dense.bias"
    assert cuts.take(bias, state[bias].numpy()).shape == (33,)
    bias = f"{LAYER.format(0)}.attention.out_proj.bias"
    assert cuts.take(bias, state[bias].numpy()).shape == (32,)
    assert cuts.rest(masks) == {}


def test_one_weight_that_is_left_keeps_its_channel(model, masks):
    fc2 = f"{LAYER.format(0)}.feed_forward.output_dense"
    gone = np.flatnonzero(~masks[fc2].any(0))
    masks[fc2][5, gone[0]] = True
    masks[f"{LAYER.format(0)}.feed_forward.intermediate_dense"][gone[1], 3] = 1
    kept = find_cuts(model, masks).channels[0]
    assert len(kept) == 35 and {gone[0], gone[1]} <= set(kept)
    out = f"{LAYER.format(1)}.attention.out_proj"
    masks[out][0, np.flatnonzero(~masks[out].any(0))[0]] = True
    assert len(find_cuts(model, masks).heads[1]) == 2


def test_a_part_without_masks_is_kept_whole(model, masks):
    some = {k: v for k, v in masks.items() if "v_proj" not in k}
    cuts = find_cuts(model, some)
    assert [len(heads) for heads in cuts.heads] == [4, 4]
    assert [len(channels) for channels in cuts.channels] == [33, 64]
    assert not find_cuts(model, {})


def test_what_is_removed_besides_is_the_rest(model, masks):
    fc1 = f"{LAYER.format(0)}.feed_forward.intermediate_dense"
    row = np.flatnonzero(masks[fc1].all(1))[2]
    masks[fc1][row, 7] = False
    rest = find_cuts(model, masks).rest(masks)
    assert list(rest) == [fc1] and rest[fc1].shape == (33, 32)
    assert np.argwhere(~rest[fc1]).tolist() == [[2, 7]]


def test_nothing_kept_is_a_part_that_is_gone(model, encoder_folder):
    masks = structured_masks(encoder_folder, [0, 4], [64, 0])
    cuts = find_cuts(model, masks)
    assert cuts.gone == {
        f"{LAYER.format(0)}.attention": f"{LAYER.format(0)}.attention.out_proj",
        f"{LAYER.format(1)}.feed_forward": (
            f"{LAYER.format(1)}.feed_forward.output_dense"
        ),
    }
    assert cuts.axes == {} and cuts.rest(masks) == {}


def test_channels_of_the_front_end(model, encoder_folder):
    front_end = [8, 16, 5, 7, 16, 1]
    masks = structured_masks(encoder_folder, [4, 4], [64, 64], front_end)
    cuts = find_cuts(model, masks)
    assert [len(kept) for kept in cuts.front_end] == front_end
    convs = [
        cuts.take(f"{CONV.format(i)}.weight", masks[CONV.format(i)])
        for i in range(7)
    ]
    sizes = [m.shape[:2] for m in convs]
    assert sizes == list(zip([*front_end, 16], [1, *front_end], strict=True))
    assert all(m.all() for m in convs)
    norm = "feature_extractor.conv_layers.0.layer_norm.bias"
    assert cuts.take(norm, np.arange(16)).tolist() == cuts.front_end[0].tolist()


def test_no_channel_left_in_the_front_end(model, encoder_folder):
    masks = structured_masks(encoder_folder, [4, 4], [64, 64], [16, 0])
    with pytest.raises(SettingError, match=r"every channel of .*layers.1.conv"):
        find_cuts(model, masks)


def test_channels_under_a_layer_norm_stay(tmp_path):
    folder = make_encoder(tmp_path / "large", "wav2vec2-large")
    masks = structured_masks(folder, [4, 4], [64, 64], [8] * 6)
    cuts = find_cuts(load_encoder(str(folder)).model, masks)
    assert not cuts and [len(kept) for kept in cuts.front_end] == [16] * 6


def test_the_share_that_goes(model, encoder_folder):
    kept = structured_masks(encoder_folder, [0, 3], [64, 24])
    # In each block 4 x 32 x 32 of attention, and as much of feed-forward.
    gone = 4 * 32 * 32 * (1 + 1 / 4 + 40 / 64)
    share = find_cuts(model, kept).share(model)
    assert share == pytest.approx(gone / (4 * 4 * 32 * 32))
    total = sum(mask.size for mask in kept.values())
    removed = sum((~mask).sum() for mask in kept.values())
    assert share == pytest.approx(removed / total)
    assert find_cuts(model, {}).share(model) == 0
    masks = structured_masks(encoder_folder, [4, 4], [64, 64], [8] * 6)
    convs = [mask for name, mask in masks.items() if name.endswith(".conv")]
    removed = 1 - sum(m.sum() for m in convs) / sum(m.size for m in convs)
    assert find_cuts(model, masks).share(model) == pytest.approx(removed)
