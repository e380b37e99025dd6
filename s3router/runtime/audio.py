"""Audio as the model wants it: mono, one rate, normalised.

Reads wav, flac, mp3, ogg and opus through soundfile. Whatever is wrong with a
file becomes one clear line.
"""

import os
import struct
from pathlib import Path

import numpy as np

from s3router.errors import DataError, MissingDependencyError, NotFoundError
from s3router.runtime.resample import resample

# The feature extractor of Hugging Face adds it to the variance.
VARIANCE_FLOOR = 1e-7

# Frames that are decoded at once, so that a long stereo file is not held
# twice.
_BLOCK = 1 << 20
# A WAV data chunk of this size and above was written to a pipe: the writer
# did not know the length.
_UNKNOWN_LENGTH = 0x7FFF0000
_MOST_CHANNELS = 64


def read_audio(path: str | Path, sample_rate: int = 16000) -> np.ndarray:
    """Read a whole audio file.

    Arguments
    ---------
    path : str or Path
        A wav, flac, mp3, ogg or opus file of any rate and channel count.
    sample_rate : int
        Wanted samples per second.

    Returns
    -------
    np.ndarray
        (samples,) float32, the mean of the channels, within about -1 to 1.

    Raises
    ------
    NotFoundError
        If there is no such file.
    DataError
        If it is empty, truncated, not audio, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.exists():
        raise NotFoundError(f"no such audio file: {path}")
    if path.is_dir():
        raise DataError(f"not an audio file but a folder: {path}")
    if path.stat().st_size == 0:
        raise DataError(f"the audio file is empty (0 bytes): {path}")
    samples, rate = _decode(path)
    return to_mono(samples, rate, sample_rate, str(path))


def to_mono(
    samples: np.ndarray,
    rate: int,
    sample_rate: int = 16000,
    name: str = "the audio array",
) -> np.ndarray:
    """Return any audio array as mono float32 at the wanted rate.

    Arguments
    ---------
    samples : np.ndarray
        (samples,) or (samples, channels), float within -1 to 1, or signed
        integers of full scale.
    rate : int
        Samples per second of `samples`.
    sample_rate : int
        Wanted samples per second.
    name : str
        What an error calls it.

    Returns
    -------
    np.ndarray
        (samples,) float32.

    Raises
    ------
    DataError
        If it is empty, has an odd shape or type, or holds NaN or infinity.

    Example
    -------
    >>> to_mono(np.array([[0, 16384]], dtype=np.int16), 16000)
    array([0.25], dtype=float32)
    """
    samples = np.asarray(samples)
    if samples.ndim == 2 and 1 <= samples.shape[1] <= _MOST_CHANNELS:
        scale = _full_scale(samples.dtype, name)
        samples = samples.mean(axis=1, dtype=np.float64) / scale
    elif samples.ndim == 1:
        samples = samples / _full_scale(samples.dtype, name)
    else:
        raise DataError(
            f"{name} has shape {samples.shape}; give (samples,) or "
            f"(samples, channels)"
        )
    if samples.size == 0:
        raise DataError(f"{name} holds no samples")
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise DataError(f"{name} holds NaN or infinite samples")
    return resample(samples, rate, sample_rate)


def normalize(samples: np.ndarray, floor: float = VARIANCE_FLOOR) -> np.ndarray:
    """Return samples of zero mean and unit variance.

    As `Wav2Vec2FeatureExtractor` of transformers with `do_normalize`; silence
    stays silence.

    Arguments
    ---------
    samples : np.ndarray
        (samples,) float32.
    floor : float
        Is added to the variance.

    Returns
    -------
    np.ndarray
        (samples,) float32.
    """
    mean = samples.mean(dtype=np.float64)
    scale = np.sqrt(samples.var(dtype=np.float64) + floor)
    return ((samples - mean) / scale).astype(np.float32)


def _full_scale(dtype: np.dtype, name: str) -> float:
    """Return the value that stands for 1.0 in samples of a type."""
    if np.issubdtype(dtype, np.floating):
        return 1.0
    if np.issubdtype(dtype, np.signedinteger):
        return float(np.iinfo(dtype).max) + 1.0
    raise DataError(
        f"{name} has samples of type {dtype}; give floats or signed integers"
    )


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Return (samples,) float32 mono and the rate of the file."""
    soundfile = _soundfile()
    blocks = []
    # Bytes, because a name on a Unix need not be valid text.
    name = str(path) if os.name == "nt" else os.fsencode(path)
    try:
        with soundfile.SoundFile(name) as file:
            rate, stated = file.samplerate, file.frames
            while True:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                blocks.append(block.mean(axis=1))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        # TypeError: soundfile takes a file that ends in .raw for headerless.
        if blocks:
            raise DataError(_truncated(path, rate, blocks)) from error
        reason = str(error).rstrip(".").split(": ")[-1]
        if "does not exist" in reason:  # libsndfile's word for bad mp3
            reason = "Format not recognised"
        raise DataError(
            f"cannot decode {path}: {reason}; wav, flac, mp3, ogg and opus "
            f"are read"
        ) from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    stated = max(stated, _stated_wav_frames(path))
    if len(samples) < stated or _ends_within_ogg_page(path):
        raise DataError(_truncated(path, rate, blocks))
    return samples, rate


def _truncated(path: Path, rate: int, blocks: list[np.ndarray]) -> str:
    """Return the error text for a file that ends too early."""
    seconds = sum(map(len, blocks)) / rate
    return (
        f"the audio file is truncated: only the first {seconds:.2f} s of it "
        f"decode: {path}"
    )


def _stated_wav_frames(path: Path) -> int:
    """Return the frames that a WAV header promises; 0 where it does not.

    libsndfile silently shortens a WAV file that ends too early, so that only
    the header tells of it.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return 0
        frame_bytes = 0
        while len(head := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", head)
            if kind == b"fmt ":
                body = file.read(size + size % 2)
                if len(body) >= 14:
                    frame_bytes = struct.unpack("<H", body[12:14])[0]
            elif kind == b"data":
                known = frame_bytes and size < _UNKNOWN_LENGTH
                return size // frame_bytes if known else 0
            else:
                file.seek(size + size % 2, 1)
    return 0


def _ends_within_ogg_page(path: Path) -> bool:
    """Return whether an ogg or opus file stops in the middle of a page.

    libsndfile takes the pages before it for the whole file.
    """
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return False
        # No page is longer than 27 + 255 + 255 * 255 bytes.
        file.seek(max(0, path.stat().st_size - 2 * 65307))
        tail = file.read()
    start = 0
    while (start := tail.find(b"OggS", start)) >= 0:
        table = tail[start + 27 : start + 27 + 255]
        segments = tail[start + 26] if len(tail) > start + 26 else 255
        if len(table) < segments:
            return True
        end = start + 27 + segments + sum(table[:segments])
        if end > len(tail):
            return True
        # Pages follow on each other, unless this was no page but data.
        start = end if tail[end : end + 4] in (b"OggS", b"") else start + 1
    return False


def _soundfile():
    """Return the soundfile module, or say how to get it."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"reading audio files needs soundfile ({error}): "
            f"pip install soundfile"
        ) from error
    return soundfile
