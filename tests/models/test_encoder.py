"""SSLEncoder against plain transformers, alone and in padded batches."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from model_factory import pad, random_model, save_folder
from transformers import Wav2Vec2FeatureExtractor

from s3router.errors import DataError, SettingError
from s3router.models.encoder import SSLEncoder, load_encoder
from s3router.models.spec_augment import SpanMasking
from s3router.models.wavlm import FusedWavLMAttention


def encoder_of(
    family: str, folder: Path, do_normalize: bool = True, **options: float
) -> SSLEncoder:
    save_folder(random_model(family), folder, do_normalize)
    return load_encoder(str(folder), **options)


def plain_output(family: str, wav: torch.Tensor) -> torch.Tensor:
    """transformers' own feature extractor and forward on one clip."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(
        wav.numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_values
    with torch.no_grad():
        return random_model(family)(values).last_hidden_state[0]


def alone(encoder: SSLEncoder, clip: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return encoder(clip[None])[0][0]


def test_each_clip_is_as_in_transformers(family, clips, tmp_path):
    encoder = encoder_of(family, tmp_path)
    for clip in clips:
        expected = plain_output(family, clip)
        torch.testing.assert_close(
            alone(encoder, clip), expected, atol=1e-5, rtol=1e-4
        )


def test_batch_equals_each_clip_alone(family, clips, tmp_path):
    encoder = encoder_of(family, tmp_path)
    wavs = pad(clips)
    relative = torch.tensor([len(c) / wavs.shape[1] for c in clips])
    with torch.no_grad():
        hidden, frames = encoder(wavs, relative)
    for i, clip in enumerate(clips):
        single = alone(encoder, clip)
        assert frames[i] == len(single)
        difference = (hidden[i, : frames[i]] - single).abs().max()
        assert difference < 1e-5 * single.abs().max()
        assert (hidden[i, frames[i] :] == 0).all()


def test_transformer_is_blind_to_padding_in_double_precision(
    family, clips, tmp_path
):
    # What differs in float32 is rounding; a leak would show here.
    encoder = encoder_of(family, tmp_path)
    lengths = torch.tensor([len(clip) for clip in clips])
    features, frames = encoder.front_end(pad(clips), lengths)
    encoder.model.double()
    features = features.double()
    with torch.no_grad():
        hidden = encoder.contextualize(features, frames)
        for i, count in enumerate(frames):
            single = encoder.contextualize(
                features[i : i + 1, :count], count[None]
            )
            assert (hidden[i, :count] - single[0]).abs().max() < 1e-12


def test_gradients_do_not_depend_on_padding(family, clips, tmp_path):
    encoder = encoder_of(family, tmp_path)
    weight = encoder.model.encoder.layers[0].feed_forward.output_dense.weight

    def gradient(batch: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        encoder.zero_grad()
        hidden, frames = encoder(batch, lens)
        hidden[0, : frames[0]].square().mean().backward()
        return weight.grad.clone()

    short = clips[2]
    single = gradient(short[None], torch.ones(1))
    wavs = pad([short, clips[0]])
    batched = gradient(wavs, torch.tensor([len(short) / len(clips[0]), 1.0]))
    torch.testing.assert_close(batched, single, atol=1e-5, rtol=1e-3)


def test_unpadded_path_equals_forward(family, clips, tmp_path):
    encoder = encoder_of(family, tmp_path)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(
        clips[2].numpy(), sampling_rate=16000, return_tensors="pt"
    ).input_values
    with torch.no_grad():
        exported = encoder.forward_unpadded(values)[0]
    torch.testing.assert_close(
        exported, alone(encoder, clips[2]), atol=1e-5, rtol=1e-4
    )


def test_layers_are_those_of_transformers(family, clips, tmp_path):
    encoder = encoder_of(family, tmp_path, do_normalize=False)
    with torch.no_grad():
        states = encoder.hidden_states(*encoder.front_end(clips[2][None]))
        expected = random_model(family)(
            clips[2][None], output_hidden_states=True
        )
    assert len(states) == encoder.num_layers + 1
    torch.testing.assert_close(
        states[1], expected.hidden_states[1], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        states[-1], expected.last_hidden_state, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("samples", [400, 401, 719, 720, 721, 16000, 16079])
def test_output_lengths_are_the_real_ones(samples, tmp_path):
    encoder = encoder_of("wav2vec2-base", tmp_path)
    features, frames = encoder.front_end(torch.randn(1, samples))
    assert features.shape[1] == frames[0]
    assert encoder.output_lengths(torch.tensor([samples])) == frames


def test_shortest_clip(tmp_path):
    encoder = encoder_of("wav2vec2-base", tmp_path)
    assert encoder.min_samples == 400
    with pytest.raises(DataError, match=r"clip 1 .* 399 samples.* 400$"):
        encoder.front_end(torch.randn(2, 800), torch.tensor([800, 399]))
    with pytest.raises(DataError, match="900 samples"):
        encoder.front_end(torch.randn(1, 800), torch.tensor([900]))


def test_silence_stays_finite(family, tmp_path):
    encoder = encoder_of(family, tmp_path)
    hidden, _ = encoder(torch.zeros(2, 4000), torch.tensor([0.5, 1.0]))
    assert hidden.isfinite().all()


def test_input_normalisation_is_as_the_folder_says(clips, tmp_path):
    off = encoder_of("wav2vec2-large", tmp_path / "off", do_normalize=False)
    assert off.normalize_input is False
    expected = random_model("wav2vec2-large")(clips[0][None])
    torch.testing.assert_close(
        off(clips[0][None])[0],
        expected.last_hidden_state,
        atol=1e-5,
        rtol=1e-4,
    )
    for family, default in (("wav2vec2-large", True), ("wavlm-base", False)):
        folder = save_folder(
            random_model(family), tmp_path / family, do_normalize=None
        )
        assert load_encoder(str(folder)).normalize_input is default


def test_dropout_acts_only_while_something_trains(tmp_path, clips):
    encoder = encoder_of("hubert-base", tmp_path, dropout=0.5)
    wav = clips[2][None]
    encoder.freeze().train()
    assert encoder.training
    assert torch.equal(encoder(wav)[0], encoder(wav)[0])
    encoder.model.encoder.layers[2].feed_forward.requires_grad_(True)
    encoder.train()
    assert not torch.equal(encoder(wav)[0], encoder(wav)[0])
    encoder.eval()
    assert torch.equal(encoder(wav)[0], encoder(wav)[0])


@pytest.mark.parametrize(
    "option",
    [
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "projection_dropout",
    ],
)
def test_each_dropout_acts(option, family, tmp_path, clips):
    wav = clips[2][None]
    folder = save_folder(random_model(family), tmp_path)
    encoder = load_encoder(str(folder)).train()
    assert torch.equal(encoder(wav)[0], encoder(wav)[0])
    encoder = load_encoder(str(folder), **{option: 0.3}).train()
    assert not torch.equal(encoder(wav)[0], encoder(wav)[0])


def test_dropout_out_of_range_is_refused(tmp_path):
    with pytest.raises(SettingError, match="attention_dropout is 1.0"):
        encoder_of("wavlm-base", tmp_path, attention_dropout=1.0)


def test_frozen_batch_norm_keeps_its_statistics(tmp_path, clips):
    encoder = encoder_of("hubert-batch-norm", tmp_path).train()
    norm = encoder.model.encoder.pos_conv_embed.batch_norm
    assert norm.training
    encoder.model.encoder.pos_conv_embed.requires_grad_(False)
    before = norm.running_mean.clone()
    encoder.train()(clips[2][None])
    assert torch.equal(norm.running_mean, before)


def test_front_end_is_frozen_unless_asked(tmp_path, clips):
    folder = str(save_folder(random_model("wav2vec2-base"), tmp_path))
    features, _ = load_encoder(folder).front_end(clips[2][None])
    assert not features.requires_grad
    trained = load_encoder(folder, freeze_front_end=False).train()
    features, _ = trained.front_end(pad(clips), torch.tensor([16000] * 5))
    features.sum().backward()
    conv = trained.model.feature_extractor.conv_layers[0].conv
    assert conv.weight.grad.abs().sum() > 0


def test_mask_embedding_never_takes_gradients(family, tmp_path):
    encoder = encoder_of(family, tmp_path)
    assert encoder.mask_embedding.shape == (32,)
    assert not encoder.mask_embedding.requires_grad


def test_augment_acts_in_training_only(family, tmp_path, clips):
    encoder = encoder_of(family, tmp_path)
    augment = SpanMasking(time_prob=0.8, time_length=4)
    features, frames = encoder.front_end(clips[0][None])
    plain = encoder.contextualize(features, frames)
    assert torch.equal(encoder.contextualize(features, frames, augment), plain)
    encoder.train()
    masked = encoder.contextualize(features, frames, augment)
    assert not torch.allclose(masked, plain)


def test_bfloat16_autocast_errs_as_transformers_does(family, tmp_path, clips):
    encoder = encoder_of(family, tmp_path, do_normalize=False)
    plain, wav = random_model(family), clips[0][None]

    def error(rough: torch.Tensor, exact: torch.Tensor) -> float:
        return ((rough.float() - exact).norm() / exact.norm()).item()

    with torch.no_grad():
        exact, theirs = encoder(wav)[0], plain(wav).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            ours_rough = encoder(wav)[0]
            theirs_rough = plain(wav).last_hidden_state
            batch = encoder(pad(clips), torch.tensor([1, 0.1, 0.6, 0.1, 0.7]))
    assert error(ours_rough, exact) < 1.1 * error(theirs_rough, theirs)
    assert batch[0].isfinite().all()


def test_gradient_checkpointing_gives_the_same_gradients(
    family, tmp_path, clips
):
    encoder = encoder_of(family, tmp_path).train()
    weight = encoder.model.encoder.layers[1].attention.q_proj.weight

    def gradient() -> torch.Tensor:
        encoder.zero_grad()
        encoder(clips[2][None])[0].square().mean().backward()
        return weight.grad.clone()

    plain = gradient()
    encoder.model.activation_checkpointing_enable()
    torch.testing.assert_close(gradient(), plain, atol=1e-7, rtol=1e-4)


def test_maskable_weights_and_fingerprint(family, tmp_path):
    encoder = encoder_of(family, tmp_path)
    weights = encoder.maskable_weights()
    assert len(weights) == 3 * 6
    name = "encoder.layers.1.feed_forward.output_dense"
    assert weights[name].shape == (32, 64)
    assert weights[name].dtype == np.float32
    before = encoder.fingerprint()
    # The same under a parametrization: the original weight counts.
    module = encoder.model.get_submodule(name)

    class Zero(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 0.0 * weight

    torch.nn.utils.parametrize.register_parametrization(
        module, "weight", Zero()
    )
    assert encoder.fingerprint() == before
    with torch.no_grad():
        module.parametrizations.weight.original[0, 0] += 1e-3
    assert encoder.fingerprint() != before


def test_deep_copy_is_independent(family, tmp_path, clips):
    encoder = encoder_of(family, tmp_path)
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in encoder.model.encoder.parameters():
            parameter.zero_()
    expected = plain_output(family, clips[2])
    torch.testing.assert_close(
        alone(twin, clips[2]), expected, atol=1e-5, rtol=1e-4
    )


def test_size_and_shape_are_told(tmp_path):
    encoder = encoder_of("wavlm-large", tmp_path)
    model = random_model("wavlm-large")
    assert encoder.family == "wavlm"
    assert encoder.hidden_size == 32
    assert encoder.num_layers == 3
    assert encoder.sample_rate == 16000
    assert encoder.name == str(tmp_path)
    assert encoder.num_parameters == sum(p.numel() for p in model.parameters())
    assert "wavlm" in repr(encoder)


def test_loading_leaves_the_callers_seed_alone(tmp_path):
    folder = save_folder(random_model("data2vec"), tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_encoder(str(folder))
    assert torch.equal(torch.rand(3), expected)


def test_policy_holds_for_transformers_own_forward_too(family, tmp_path, clips):
    # Somebody may call encoder.model; it must not drop layers or mask.
    model = random_model(family, layerdrop=0.9, mask_time_prob=0.9)
    save_folder(model, tmp_path)
    encoder = load_encoder(str(tmp_path)).train()
    wav = clips[0][None]
    first = encoder.model(wav).last_hidden_state
    assert torch.equal(encoder.model(wav).last_hidden_state, first)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", ["wavlm-base", "wavlm-large"])
def test_wavlm_runs_fused_and_without_warnings(shape, tmp_path, clips):
    encoder = encoder_of(shape, tmp_path)
    for block in encoder.model.encoder.layers:
        assert type(block.attention) is FusedWavLMAttention
    encoder(pad(clips[:3]), torch.tensor([1.0, 0.1, 0.7]))


def test_wavlm_projections_are_called_as_modules(tmp_path, clips):
    # A mask, a hook or a wrapper on them must act (it does not in
    # transformers' own attention).
    encoder = encoder_of("wavlm-base", tmp_path)
    called = []
    attention = encoder.model.encoder.layers[1].attention
    for role in ("q_proj", "k_proj", "v_proj", "out_proj"):
        module = getattr(attention, role)
        module.register_forward_hook(lambda *_, role=role: called.append(role))
    encoder(clips[1][None])
    assert sorted(called) == ["k_proj", "out_proj", "q_proj", "v_proj"]
