"""Reading audio: every format, and one clear line for every fault."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3router.errors import DataError, NotFoundError
from s3router.runtime.audio import normalize, read_audio, to_mono


@pytest.fixture
def tone() -> np.ndarray:
    """Return 0.5 s of 440 Hz at 16 kHz."""
    time = np.arange(8000) / 16000
    return (0.4 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    options = {"opus": {"format": "OGG", "subtype": "OPUS"}}
    suffix = path.suffix.removeprefix(".")
    soundfile.write(path, samples, rate, **options.get(suffix, {}))
    return path


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [("wav", 1e-4), ("flac", 1e-4), ("mp3", 0.05), ("ogg", 0.05)],
)
def test_formats(tmp_path: Path, tone, suffix: str, tolerance: float):
    got = read_audio(write(tmp_path / f"a.{suffix}", tone))
    assert got.dtype == np.float32
    assert got.shape == tone.shape
    assert np.abs(got - tone)[500:-500].max() < tolerance


def test_opus(tmp_path: Path, tone):
    got = read_audio(write(tmp_path / "a.opus", tone))
    assert abs(len(got) - len(tone)) <= 16
    spectrum = np.abs(np.fft.rfft(got[:8000]))
    assert spectrum.argmax() == 220  # bins of 2 Hz


def test_stereo_is_averaged_and_resampled(tmp_path: Path, tone):
    left, right = np.repeat(tone, 3), np.zeros(24000, np.float32)
    stereo = np.stack([left, right], axis=1)
    got = read_audio(write(tmp_path / "a.wav", stereo, 48000))
    mono = read_audio(write(tmp_path / "b.wav", left / 2, 48000))
    assert got.shape == (8000,)
    np.testing.assert_allclose(got, mono, atol=1e-4)


def test_8_kilohertz(tmp_path: Path, tone):
    got = read_audio(write(tmp_path / "a.wav", tone[::2], 8000))
    assert np.abs(got - tone)[300:-300].max() < 0.01


def test_missing(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no such audio file: .*x.wav"):
        read_audio(tmp_path / "x.wav")


def test_a_folder(tmp_path: Path):
    with pytest.raises(DataError, match="folder"):
        read_audio(tmp_path)


def test_zero_bytes(tmp_path: Path):
    (tmp_path / "x.wav").touch()
    with pytest.raises(DataError, match="empty"):
        read_audio(tmp_path / "x.wav")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "raw", "txt"])
def test_not_audio(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"this is a text about audio\n" * 40)
    with pytest.raises(DataError, match=f"cannot decode .*x.{suffix}"):
        read_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated(tmp_path: Path, tone, suffix: str, share: float):
    path = write(tmp_path / f"x.{suffix}", np.tile(tone, 4))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError) as caught:
        read_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wav_of_unknown_length_is_read(tmp_path: Path, tone):
    """Programs that write to a pipe put the largest size into the header."""
    path = write(tmp_path / "x.wav", tone)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path)) == len(tone)


def test_no_samples(tmp_path: Path):
    path = write(tmp_path / "x.wav", np.zeros(0, np.float32))
    with pytest.raises(DataError, match="no samples"):
        read_audio(path)


def test_nan(tmp_path: Path, tone):
    tone[17] = np.nan
    path = tmp_path / "x.wav"
    soundfile.write(path, tone, 16000, subtype="FLOAT")
    with pytest.raises(DataError, match="NaN"):
        read_audio(path)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0.5, -0.5]), [0.5, -0.5]),
        (np.array([[0.5, 0.0], [1.0, -1.0]]), [0.25, 0.0]),
        (np.array([16384, -32768], np.int16), [0.5, -1.0]),
        (np.array([2**30], np.int32), [0.5]),
    ],
)
def test_arrays(samples: np.ndarray, expected: list[float]):
    got = to_mono(samples, 16000)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros((1, 16000)), "shape"),
        (np.zeros((2, 2, 2)), "shape"),
        (np.zeros(0), "no samples"),
        (np.array([1, 2], np.uint8), "uint8"),
        (np.array([np.inf]), "infinite"),
    ],
)
def test_bad_arrays(samples: np.ndarray, words: str):
    with pytest.raises(DataError, match=words):
        to_mono(samples, 16000)


def test_normalize_as_the_feature_extractor(tone):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    for samples in (tone, 1e-4 * tone + 0.3, np.zeros(500, np.float32)):
        expected = extractor(samples, sampling_rate=16000).input_values[0]
        got = normalize(samples)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=2e-3, rtol=1e-3)
