"""Decoding and caching of a pool: long, wide, short and silent clips."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from pretrain_toys import small_encoder

from s3router.brains.pretrain_audio import (
    cache_features,
    cached_samples,
    degraded_item,
)
from s3router.brains.pretrain_decode import decode_pool
from s3router.data.audio import inspect_audio
from s3router.data.ragged import Ragged
from s3router.errors import DataError, MismatchError
from s3router.models.frame_grid import FrameGrid

GRID = FrameGrid(window=720, hop=640)


def rows_of(folder, clips):
    """Write clips (name to samples and rate) and return their rows."""
    rows = []
    for name, (wave, rate) in clips.items():
        soundfile.write(folder / name, wave, rate)
        rows.append(
            {
                "ID": name,
                "duration": inspect_audio(folder / name),
                "wav": str(folder / name),
                "spk_id": name[0],
                "wrd": "",
                "language": "xx",
            }
        )
    return rows


def noise(count, seed=0):
    return 0.2 * np.random.default_rng(seed).standard_normal(count)


def test_a_long_clip_is_read_and_resampled_part_by_part(tmp_path, monkeypatch):
    """Its parts, joined, are the whole; no part is read with another."""
    stereo = noise(2 * 48000 * 7).reshape(-1, 2)
    rows = rows_of(tmp_path, {"a.wav": (stereo, 48000)})
    asked = []
    read = soundfile.SoundFile.read

    def noted(file, frames=-1, *args, **kwargs):
        asked.append(frames)
        return read(file, frames, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", noted)
    audio, items = decode_pool(rows, tmp_path / "a.i16", 720, 2.0)
    assert len(audio) == len(items) == 4  # of 7 s, in parts of 2 s at most
    assert {item["id"] for item in items} == {"a.wav"}
    assert max(asked) <= 2 * 48000 and min(asked) > 0
    assert audio.lengths.max() <= 2 * 16000
    assert np.ptp(audio.lengths) <= 2
    joined = np.concatenate(list(audio)).astype(float)
    mono = torch.from_numpy(stereo.mean(1))
    whole = torchaudio.functional.resample(mono, 48000, 16000).numpy() * 32767
    assert abs(len(joined) - len(whole)) <= 4
    count = min(len(joined), len(whole))
    difference = np.abs(joined[:count] - whole[:count])
    # But for the few samples at the cuts, which have silence beyond them.
    assert np.median(difference) < 1 and (difference > 50).mean() < 0.002


def test_a_clip_of_one_part_is_as_read_audio_gives_it(tmp_path):
    wave = noise(16000)
    rows = rows_of(tmp_path, {"a.wav": (wave, 16000)})
    audio, _ = decode_pool(rows, tmp_path / "a.i16", 720)
    np.testing.assert_allclose(audio[0], wave * 32767, atol=1.5)


def test_loud_clips_are_scaled_not_wrapped(tmp_path):
    wave = np.linspace(-3, 3, 16000).astype("f4")
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    row = {"ID": "a", "duration": 1.0, "wav": str(tmp_path / "a.wav")}
    row.update(spk_id="a", wrd="", language="xx")
    audio, _ = decode_pool([row], tmp_path / "a.i16", 720)
    assert (np.diff(audio[0].astype(int)) >= 0).all()
    assert audio[0].max() == 32767


def test_short_and_silent_clips_are_left_out_and_counted(tmp_path, caplog):
    clips = {
        "a.wav": (noise(8000), 16000),
        "b.wav": (noise(719), 16000),
        "c.wav": (np.zeros(8000), 16000),
        "d.wav": (noise(720), 16000),
    }
    rows = rows_of(tmp_path, clips)
    with caplog.at_level("WARNING"):
        audio, items = decode_pool(rows, tmp_path / "a.i16", 720)
    assert [item["id"] for item in items] == ["a.wav", "d.wav"]
    assert "2 clips are silent or shorter than one frame" in caplog.text
    assert audio.lengths.tolist() == [8000, 720]
    with pytest.raises(DataError, match="fewer than 720 samples"):
        decode_pool(rows[1:3], tmp_path / "b.i16", 720)
    assert not (tmp_path / "b.i16").exists()


def test_a_file_that_broke_since_is_one_line(tmp_path):
    rows = rows_of(tmp_path, {"a.wav": (noise(64000), 16000)})
    (tmp_path / "a.wav").write_bytes(b"no audio")
    for longest in (1.0, 30.0):
        with pytest.raises(DataError, match="undecodable audio file .*a.wav"):
            decode_pool(rows, tmp_path / "a.i16", 720, longest)


@pytest.fixture
def audio(tmp_path):
    lengths = (16000, 720, 1600, 5000, 33000)
    clips = {
        f"{n}.wav": (noise(count, n), 16000) for n, count in enumerate(lengths)
    }
    rows = rows_of(tmp_path, clips)
    return decode_pool(rows, tmp_path / "a.i16", 720)[0]


@pytest.mark.parametrize("seed", [None, 3, 4])
def test_cached_frames_are_those_that_were_foretold(audio, tmp_path, seed):
    front_end = small_encoder().feature_extractor
    path = tmp_path / "f.f16"
    cached = cache_features(front_end, audio, path, GRID, seed)
    samples = cached_samples(audio.lengths, GRID, seed)
    assert (samples % 1600 == 0)[samples > 1600].all()
    assert samples.min() >= 720
    for index in range(len(audio)):
        if seed is not None:
            wave = degraded_item(audio, index, seed)
            assert 0 <= len(wave) - samples[index] < 1600 or len(wave) < 720
        assert len(cached[index]) == GRID.frames(int(samples[index]))
    # A second call takes what is there.
    before = path.stat().st_mtime_ns
    cache_features(front_end, audio, path, GRID, seed)
    assert path.stat().st_mtime_ns == before


def test_a_copy_too_short_for_a_frame_gets_one_all_the_same(audio, tmp_path):
    seeds = [
        seed
        for seed in range(20)
        if len(degraded_item(audio, 1, seed)) < GRID.window
    ]
    assert seeds, "no faster copy of the shortest clip"
    front_end = small_encoder().feature_extractor
    cached = cache_features(front_end, audio, tmp_path / "f", GRID, seeds[0])
    assert len(cached[1]) == 1


def test_features_of_another_front_end_or_pool_are_refused(audio, tmp_path):
    front_end = small_encoder().feature_extractor
    path = tmp_path / "f.f16"
    cache_features(front_end, audio, path, GRID, 3)
    with pytest.raises(MismatchError, match="seed 3, now it is 4"):
        cache_features(front_end, audio, path, GRID, 4)
    other = small_encoder().feature_extractor
    with torch.no_grad():
        other.conv_layers[3].conv.weight[0, 0, 0] += 0.1
    with pytest.raises(MismatchError, match="front_end sha256"):
        cache_features(other, audio, path, GRID, 3)
    # From before there were records: by what can be counted.
    path.with_name("f.f16.json").unlink()
    assert isinstance(cache_features(other, audio, path, GRID, 3), Ragged)
    with pytest.raises(MismatchError, match="frames of 5 clips"):
        cache_features(front_end, audio, path, FrameGrid(400, 320), 3)
