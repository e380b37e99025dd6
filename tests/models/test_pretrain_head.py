"""What pre-training wraps round the encoder changes nothing in it."""

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from s3router.errors import SettingError
from s3router.models.encoder import load_encoder
from s3router.models.encoder_folder import build_encoder, save_encoder
from s3router.models.frame_grid import FrameGrid
from s3router.models.pretrain_head import (
    MaskedEncoder,
    MelRegressor,
    UnitPredictor,
)
from s3router.models.units import log_mel


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
    save_encoder(encoder, tmp_path)
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


def test_the_regressor_has_as_many_bands_as_log_mel_gives(encoder):
    wavs = torch.randn(2, 4000)
    assert MelRegressor(encoder, 5)(wavs).shape[-1] == 5
    # One more halving: 40 ms, two spectra in a frame.
    slow = HubertModel(
        HubertConfig(
            **{
                **encoder.config.to_dict(),
                "conv_dim": (8, 8, 16, 16),
                "conv_stride": (5, 8, 8, 2),
                "conv_kernel": (10, 8, 8, 2),
                "num_feat_extract_layers": 4,
            }
        )
    )
    grid = FrameGrid.of(slow.config)
    assert grid.hop == 640
    bands = MelRegressor(slow, 5)(wavs)
    assert bands.shape == log_mel(wavs, 5, grid).shape


def test_a_wav2vec2_encoder_is_built_from_either_configuration(
    encoder, tmp_path
):
    model = build_encoder(encoder.config, "wav2vec2").eval()
    assert isinstance(model, Wav2Vec2Model)
    for name in ("hidden_size", "conv_stride", "do_stable_layer_norm"):
        ours, theirs = (getattr(m.config, name) for m in (model, encoder))
        assert (
            tuple(ours) == tuple(theirs)
            if name[:4] == "conv"
            else (ours == theirs)
        )
    save_encoder(model, tmp_path)
    loaded = Wav2Vec2Model.from_pretrained(tmp_path).eval()
    wavs = torch.randn(1, 8000)
    with torch.no_grad():
        expected = model.half().float()(wavs).last_hidden_state
        found = loaded(wavs).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert load_encoder(str(tmp_path)).family == "wav2vec2"
    again = build_encoder(Wav2Vec2Config(num_hidden_layers=1), "hubert")
    assert isinstance(again, HubertModel)
    assert again.config.num_hidden_layers == 1


def test_the_same_weights_give_the_same_in_both_families(encoder):
    other = build_encoder(encoder.config, "wav2vec2").eval()
    missing, unexpected = other.load_state_dict(
        encoder.state_dict(), strict=False
    )
    assert not missing and not unexpected
    features = encoder.feature_extractor(torch.randn(1, 8000)).transpose(1, 2)
    frames = torch.tensor([features.shape[1]])
    states = [
        MaskedEncoder(model).states(features, frames)
        for model in (encoder, other)
    ]
    torch.testing.assert_close(*states)


@pytest.mark.parametrize(
    ("changes", "family", "line"),
    [
        ({"num_attention_heads": 3}, "hubert", "encoder_config: .*num_heads"),
        ({"num_conv_pos_embedding_groups": 5}, "hubert", "encoder_config"),
        ({"hiden_size": 8}, "hubert", "did you mean 'hidden_size'"),
        ({"conv_pos_batch_norm": True}, "wav2vec2", "no conv_pos_batch_norm"),
    ],
)
def test_impossible_shapes_are_settings(encoder, changes, family, line):
    config = HubertConfig(**{**encoder.config.to_dict(), **changes})
    with pytest.raises(SettingError, match=line):
        build_encoder(config, family)


def test_an_encoder_without_mask_embedding_is_refused(encoder):
    values = {**encoder.config.to_dict(), "mask_time_prob": 0.0}
    with pytest.raises(SettingError, match="mask_time_prob"):
        UnitPredictor(HubertModel(HubertConfig(**values)), 3)


def test_names_of_weights_are_those_of_earlier_checkpoints(encoder):
    """Checkpoints hold them in this order; optimizers know the order only."""
    names = [name for name, _ in UnitPredictor(encoder, 3).named_parameters()]
    assert names[0] == "mask_embedding"
    tops = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert tops == ["mask_embedding", "projection", "transformer", "read_out"]
