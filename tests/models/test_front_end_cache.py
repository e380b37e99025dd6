"""FrontEndCache: the same features, once a clip, within the limit."""

import pytest
import torch
from model_factory import random_model, save_folder

from s3router.errors import DataError, NotFoundError, SettingError
from s3router.models.encoder import SSLEncoder, load_encoder
from s3router.models.front_end_cache import FrontEndCache


@pytest.fixture
def encoder(tmp_path) -> SSLEncoder:
    folder = save_folder(random_model("wav2vec2-base"), tmp_path)
    return load_encoder(str(folder))


def loaders(clips: list[torch.Tensor]) -> list:
    return [(f"clip{i}", lambda c=clip: c) for i, clip in enumerate(clips)]


def test_features_are_those_of_the_front_end(encoder, clips):
    cache = FrontEndCache(encoder, 100)
    cache.add(loaders(clips), show_progress=False)
    assert len(cache) == len(clips)
    for i, clip in enumerate(clips):
        exact = encoder.front_end(clip[None])[0][0]
        kept = cache.get(f"clip{i}")
        assert kept.dtype == torch.float32
        torch.testing.assert_close(kept, exact, atol=1e-3, rtol=1e-3)
    assert cache.get("clip0", torch.float16).dtype == torch.float16
    frames = sum(len(cache.get(f"clip{i}")) for i in range(len(clips)))
    assert cache.megabytes == pytest.approx(frames * 16 * 2 / 1e6)


def test_hidden_states_from_the_cache(encoder, clips):
    cache = FrontEndCache(encoder, 100)
    cache.add(loaders(clips), show_progress=False)
    features = cache.get("clip0")[None]
    frames = torch.tensor([features.shape[1]])
    with torch.no_grad():
        kept = encoder.contextualize(features, frames)
        exact, _ = encoder(clips[0][None])
    assert (kept - exact).abs().max() < 0.01 * exact.abs().max()


def test_a_clip_is_loaded_once(encoder, clips):
    calls = []

    def load() -> torch.Tensor:
        calls.append(1)
        return clips[0]

    cache = FrontEndCache(encoder, 100)
    cache.add([("a", load)], show_progress=False)
    cache.add(iter([("a", load)]), show_progress=False)
    assert len(calls) == 1
    assert "a" in cache
    cache.clear()
    assert "a" not in cache
    assert cache.megabytes == 0


def test_progress_is_shown(encoder, clips, capsys):
    FrontEndCache(encoder, 100).add(loaders(clips), description="conv")
    assert "conv: 100%" in capsys.readouterr().err


def test_limit_is_an_error_and_keeps_what_fitted(encoder, clips):
    cache = FrontEndCache(encoder, max_megabytes=0.002)
    with pytest.raises(
        SettingError, match="full: 2 clips .* 0.0016 .* 0.002 MB"
    ):
        cache.add(loaders(clips), show_progress=False)
    assert len(cache) == 2
    assert cache.megabytes <= 0.002


def test_errors_name_the_clip(encoder):
    cache = FrontEndCache(encoder, 1)
    with pytest.raises(DataError, match="'short'.* 100 samples"):
        cache.add([("short", lambda: torch.ones(100))], show_progress=False)
    with pytest.raises(NotFoundError, match="'absent'"):
        cache.get("absent")


def test_values_beyond_float16_are_kept(encoder, clips):
    norm = encoder.model.feature_extractor.conv_layers[0].layer_norm
    with torch.no_grad():
        norm.weight.mul_(1e6)
    cache = FrontEndCache(encoder, 10)
    cache.add(loaders(clips[:1]), show_progress=False)
    exact = encoder.front_end(clips[0][None])[0][0]
    assert exact.abs().max() > 65504
    torch.testing.assert_close(cache.get("clip0"), exact)


def test_a_front_end_that_trains_is_refused(tmp_path):
    folder = str(save_folder(random_model("hubert-base"), tmp_path))
    encoder = load_encoder(folder, freeze_front_end=False)
    with pytest.raises(SettingError, match="cannot be cached"):
        FrontEndCache(encoder, 10)
