"""Folding: the same numbers as masks in place, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from subnetworks import make_encoder, make_subnetwork
from torch.nn.utils import parametrize

from s3router.errors import MismatchError
from s3router.export.fold import fold
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.router import Router
from s3router.models.encoder import load_encoder


def load(encoder: Path, folder: Path):
    return load_encoder(str(encoder)), Subnetwork.load(folder)


def test_weights_are_base_times_mask(encoder_folder, subnetwork_folders):
    encoder, subnetwork = load(encoder_folder, subnetwork_folders[0])
    base = {n: p.detach().clone() for n, p in encoder.model.named_parameters()}
    model = fold(encoder, subnetwork)
    assert len(subnetwork.masks) == 12
    folded = model.encoder.model.state_dict()
    for name, mask in subnetwork.masks.items():
        got = folded[f"{name}.weight"].numpy()
        expected = np.where(mask, base[f"{name}.weight"].numpy(), 0)
        np.testing.assert_array_equal(got, expected)
        assert not np.signbit(got[~mask]).any(), "-0.0 is not plain zero"
        assert (got == 0).sum() == round(0.37 * mask.size)
    masked = {f"{name}.weight" for name in subnetwork.masks}
    for name in set(base) & set(folded) - masked:
        assert torch.equal(base[name], folded[name]), name


def test_logits_are_those_of_masks_in_place(encoder_folder, subnetwork_folders):
    encoder, subnetwork = load(encoder_folder, subnetwork_folders[0])
    Router(encoder.model, targets="all", sparsity=0.37).activate(
        subnetwork.masks
    )
    wavs = torch.randn(2, 4321)
    with torch.no_grad():
        hidden = encoder.forward_unpadded(wavs)
    weight, bias = (subnetwork.head[k] for k in ("weight", "bias"))
    expected = hidden.numpy() @ weight.T + bias
    model = fold(*load(encoder_folder, subnetwork_folders[0]))
    np.testing.assert_allclose(model(wavs).numpy(), expected, atol=2e-5)


def test_nothing_is_left_parametrized(encoder_folder, subnetwork_folders):
    model = fold(*load(encoder_folder, subnetwork_folders[0]))
    assert not any(parametrize.is_parametrized(m) for m in model.modules())
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_tuned_weights(encoder_folder, subnetwork_folders):
    encoder, subnetwork = load(encoder_folder, subnetwork_folders[1])
    before = encoder.forward_unpadded(torch.ones(1, 900))
    model = fold(encoder, subnetwork)
    after = model.encoder.model.state_dict()
    for name, value in subnetwork.weights.items():
        if "original" not in name:
            np.testing.assert_array_equal(after[name].numpy(), value)
    changed = model.encoder.forward_unpadded(torch.ones(1, 900))
    assert (before - changed).abs().max() > 0.01


def test_padded_batches_give_what_clips_alone_give(
    encoder_folder, subnetwork_folders
):
    model = fold(*load(encoder_folder, subnetwork_folders[0]))
    clips = [torch.randn(n) for n in (8000, 400, 3333)]
    together = model.padded(clips)
    for clip, logits in zip(clips, together, strict=True):
        (alone,) = model.padded([clip])
        assert logits.shape == alone.shape
        assert (logits - alone).abs().max() < 1e-4


def test_another_encoder(tmp_path, subnetwork_folders):
    other = make_encoder(tmp_path / "other", "wav2vec2-base", seed=5)
    with pytest.raises(MismatchError, match="fingerprint.*other"):
        fold(*load(other, subnetwork_folders[0]))


def test_tuned_weights_that_do_not_fit(encoder_folder, subnetwork_folders):
    encoder, subnetwork = load(encoder_folder, subnetwork_folders[1])
    name = "encoder.layer_norm.weight"
    before = encoder.model.state_dict()["encoder.layer_norm.bias"].clone()
    subnetwork.weights = {
        "encoder.layer_norm.bias": np.ones(32, np.float32),
        name: np.ones(33, np.float32),
    }
    with pytest.raises(MismatchError, match=rf"{name} has shape \(33,\)"):
        fold(encoder, subnetwork)
    after = encoder.model.state_dict()["encoder.layer_norm.bias"]
    assert torch.equal(before, after), "changed before the error"
    subnetwork.weights = {"encoder.norm": np.ones(3, np.float32)}
    with pytest.raises(MismatchError, match="encoder.norm is no weight"):
        fold(encoder, subnetwork)


def test_head_of_another_width(encoder_folder, subnetwork_folders):
    encoder, subnetwork = load(encoder_folder, subnetwork_folders[0])
    subnetwork.head["weight"] = np.ones((25, 64), np.float32)
    with pytest.raises(MismatchError, match="head does not take the 32"):
        fold(encoder, subnetwork)


def test_other_normalisation(tmp_path):
    encoder = make_encoder(tmp_path / "enc", "wav2vec2-base")
    folder = make_subnetwork(tmp_path / "s", encoder)
    settings = {"do_normalize": False, "sampling_rate": 16000}
    path = encoder / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(MismatchError, match="normalize=True.*says False"):
        fold(*load(encoder, folder))
