"""What pre-training wraps round the encoder changes nothing in it."""

import pytest
import torch
from transformers import HubertConfig, HubertModel

from s3router.models.hubert_folder import save_hubert
from s3router.models.pretrain_head import MelRegressor, UnitPredictor


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    config = HubertConfig(
        conv_dim=(8, 8, 16),
        conv_stride=(5, 8, 8),
        conv_kernel=(10, 8, 8),
        num_feat_extract_layers=3,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True,
        initializer_range=0.06,
        mask_time_prob=0.05,
        layerdrop=0.1,
    )
    return HubertModel(config).eval()


def test_logits_come_from_the_last_hidden_state(encoder):
    model = UnitPredictor(encoder, 7)
    wavs = torch.randn(1, 8000)
    features = encoder.feature_extractor(wavs).transpose(1, 2)
    frames = torch.tensor([features.shape[1]])
    expected = model.read_out(encoder(wavs).last_hidden_state)
    torch.testing.assert_close(model(features, frames), expected)


def test_padding_changes_nothing(encoder):
    model = UnitPredictor(encoder, 7)
    features = torch.randn(2, 30, 16)
    frames = torch.tensor([30, 12])
    together = model(features, frames)
    alone = model(features[1:, :12], frames[1:])
    torch.testing.assert_close(together[1:, :12], alone)


def test_hidden_frames_are_not_seen(encoder):
    model = UnitPredictor(encoder, 7)
    first, second = torch.randn(2, 1, 20, 16)
    hidden = torch.zeros(1, 20, dtype=torch.bool)
    hidden[0, 5:11] = True
    second = torch.where(hidden.unsqueeze(-1), second, first)
    frames = torch.tensor([20])
    torch.testing.assert_close(
        model(first, frames, hidden), model(second, frames, hidden)
    )
    assert not torch.equal(model(first, frames), model(second, frames))


def test_layers_are_the_blocks_inputs_and_outputs(encoder):
    model = UnitPredictor(encoder, 7)
    wavs = torch.randn(1, 8000)
    features = encoder.feature_extractor(wavs).transpose(1, 2)
    frames = torch.tensor([features.shape[1]])
    caught = []
    for block in encoder.encoder.layers:
        block.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        block.register_forward_hook(lambda _, args, out: caught.append(out))
    encoder(wavs)
    reference = [caught[0], *caught[1::2]]
    found = model.layers(features, frames, 2)
    assert len(found) == 3
    for ours, theirs in zip(found, reference, strict=False):
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        torch.testing.assert_close(ours, theirs)


def test_the_regressor_trains_the_front_end(encoder):
    model = MelRegressor(encoder, 5)
    model(torch.randn(2, 4000)).square().mean().backward()
    weights = list(encoder.feature_extractor.parameters())
    assert all(w.grad is not None and w.grad.any() for w in weights)
    assert all(w.grad is None for w in encoder.encoder.parameters())


def test_a_saved_encoder_is_the_one_that_plain_transformers_loads(
    encoder, tmp_path
):
    save_hubert(encoder, tmp_path)
    loaded = HubertModel.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float32
    for name in ("layerdrop", "mask_time_prob", "mask_feature_prob"):
        assert getattr(loaded.config, name) == 0.0
    wavs = torch.randn(1, 8000)
    with torch.no_grad():
        expected = encoder.half().float()(wavs).last_hidden_state
        torch.testing.assert_close(
            loaded(wavs).last_hidden_state, expected, atol=1e-5, rtol=1e-5
        )
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o044 == 0o044
