"""Audio is read as it sounds, and what is wrong with a file is said."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from s3router.data.audio import check_audio, inspect_audio, read_audio
from s3router.errors import DataError

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "ogg": ("OGG", "VORBIS"),
}


def tone(seconds=1.0, rate=16000, hertz=440.0):
    time = np.arange(int(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write(path, samples, rate=16000):
    kind, subtype = FORMATS[path.suffix[1:]]
    with path.open("wb") as file:
        soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return path


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", tone(2.0))
    samples = read_audio(path)
    assert samples.dtype == torch.float32 and samples.shape == (32000,)
    middle = samples[4000:28000].numpy()
    # Compressed sound is judged by its spectrum: one line at 440 Hz.
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * 16000 / len(middle) == pytest.approx(440, abs=1)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.05)
    assert inspect_audio(path) == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("rate", [8000, 22050, 32000, 44100, 48000])
def test_resampled_tone_is_the_tone(tmp_path, rate):
    path = write(tmp_path / "a.flac", tone(1.0, rate), rate)
    samples = read_audio(path).numpy()
    assert len(samples) == 16000
    expected = tone(1.0, 16000)
    assert np.abs(samples - expected)[500:-500].max() < 2e-3


def test_channels_are_averaged(tmp_path):
    left, right = tone(hertz=300), tone(hertz=700)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1))
    assert np.allclose(read_audio(path), (left + right) / 2, atol=1e-4)


def test_content_counts_not_the_name(tmp_path):
    path = write(tmp_path / "a.flac", tone())
    wrong = path.rename(tmp_path / "a.mp3")
    assert len(read_audio(wrong)) == 16000


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.9, 0.6])
def test_truncated(tmp_path, suffix, share):
    path = write(tmp_path / f"a.{suffix}", tone(5.0))
    assert check_audio(path).problem == ""
    check = check_audio(cut(path, share))
    # libsndfile itself raises for FLAC and for some Ogg files only.
    assert check.problem == "truncated"
    assert check.duration < 4.9
    for read in (read_audio, inspect_audio):
        with pytest.raises(DataError, match="truncated audio file"):
            read(path)


def test_libsndfile_alone_would_miss_a_truncated_mp3(tmp_path):
    # Why lengths are compared: without it the clip would just be shorter.
    path = cut(write(tmp_path / "a.mp3", tone(5.0)), 0.5)
    samples, rate = soundfile.read(path)
    assert len(samples) < 0.6 * soundfile.info(path).frames
    with pytest.raises(DataError, match=r"of the announced 5\.00 s"):
        read_audio(path)


def test_small_mp3_padding_differences_are_forgiven(tmp_path):
    path = write(tmp_path / "a.mp3", tone(5.0))
    data = path.read_bytes()
    path.write_bytes(data[:-300])  # less than a tenth of a second
    assert check_audio(path).problem == ""


def test_streamed_wav_of_unknown_length_is_whole(tmp_path):
    path = write(tmp_path / "a.wav", tone())
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert check_audio(path).problem == ""


def test_broken_files(tmp_path):
    empty = tmp_path / "empty.mp3"
    empty.touch()
    text = tmp_path / "text.mp3"
    text.write_text("not audio at all " * 99)
    video = tmp_path / "a.m4a"
    video.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(500))
    silent = tmp_path / "none.wav"
    soundfile.write(silent, np.zeros(0, np.float32), 16000)
    nan = tmp_path / "nan.wav"
    values = np.array([0.0, np.nan], np.float32)
    soundfile.write(nan, values, 16000, subtype="FLOAT")
    cases = {
        empty: ("empty", "0 bytes"),
        silent: ("empty", "no samples"),
        text: ("undecodable", "not recognised"),
        video: ("undecodable", "convert it"),
        raw: ("undecodable", ""),
        nan: ("undecodable", "finite"),
        tmp_path: ("undecodable", "folder"),
        tmp_path / "no.mp3": ("missing", "no such file"),
    }
    for path, (problem, detail) in cases.items():
        assert check_audio(path).problem == problem, path
        with pytest.raises(DataError) as caught:
            read_audio(path)
        message = str(caught.value)
        assert str(path) in message and detail in message
        assert problem in message and "\n" not in message


@pytest.mark.parametrize("pack", ["zh_dsp20", "is_samromur"])
def test_real_speech(shared_data: Path, pack):
    clip = sorted((shared_data / pack / "audio").glob("*.ogg"))[0]
    samples = read_audio(clip)
    reference, rate = soundfile.read(clip, dtype="float32")
    assert rate == 16000 and np.array_equal(samples, reference)
    assert inspect_audio(clip) == len(reference) / 16000
    assert 0.01 < samples.std() < 0.5
