"""Audio files as the encoder wants them: mono, one rate, float32.

Reads through soundfile: wav, flac, mp3, ogg, opus and more, told apart by
content, not by name. Whatever is wrong with a file becomes one line. Does not
normalise: that is the encoder's business.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from s3router.data.container import missing_bytes
from s3router.errors import DataError

#: What can be wrong with a clip as such.
PROBLEMS = ("missing", "empty", "undecodable", "truncated")

# Decoders differ in the silence that they add or take at the ends of an mp3.
_TOLERANCE_SECONDS = 0.1

# About a second: a damaged file is then known to break off, and where.
_BLOCK_FRAMES = 1 << 14

_UNREADABLE = frozenset(".m4a .mp4 .aac .wma .webm .amr .3gp .mkv .ra".split())


@dataclass(frozen=True)
class AudioCheck:
    """What became of decoding one file.

    Arguments
    ---------
    duration : float
        Seconds that were decoded.
    problem : str
        One of `PROBLEMS`; empty if the file is sound.
    detail : str
        The line to show for the problem, without the path.
    """

    duration: float
    problem: str = ""
    detail: str = ""


def read_audio(
    path: str | os.PathLike, sample_rate: int = 16000
) -> torch.Tensor:
    """Read a whole audio file.

    Arguments
    ---------
    path : str or path
        A file of any rate and channel count.
    sample_rate : int
        Wanted samples per second.

    Returns
    -------
    torch.Tensor
        (samples,) float32, the mean of the channels, within about -1 to 1.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated or no audio.
    """
    blocks: list[np.ndarray] = []
    check, rate = _decode(path, blocks.append)
    if check.problem:
        raise DataError(f"{check.problem} audio file {path}: {check.detail}")
    samples = torch.from_numpy(np.concatenate(blocks))
    if rate != sample_rate:
        samples = _resampler(rate, sample_rate)(samples)
    return samples


def inspect_audio(path: str | os.PathLike) -> float:
    """Decode a file and return how long it is.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    float
        Seconds that were decoded, which for broken files is less than what
        their headers say.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated or no audio.
    """
    check = check_audio(path)
    if check.problem:
        raise DataError(f"{check.problem} audio file {path}: {check.detail}")
    return check.duration


def check_audio(path: str | os.PathLike) -> AudioCheck:
    """Decode a file and tell what is wrong with it; never raises for a file.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    AudioCheck
        Duration, and the problem if there is one.

    Example
    -------
    >>> check_audio("/nowhere/a.mp3").problem
    'missing'
    """
    return _decode(path, lambda block: None)[0]


# Building a resampler costs as much as using it (9 ms against 48 kHz speech),
# and one is the same as any other of its rates.
@lru_cache(maxsize=16)
def _resampler(rate: int, sample_rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, sample_rate)


def _decode(
    path: str | os.PathLike, keep: Callable[[np.ndarray], object]
) -> tuple[AudioCheck, int]:
    """Decode in blocks, handing each on as mono; return check and rate."""
    path = Path(path)
    fault = _look(path)
    if fault:
        return fault, 0
    frames, announced, rate = 0, 0, 0
    try:
        with soundfile.SoundFile(path) as file:
            announced, rate = file.frames, file.samplerate
            for block in _blocks(file):
                frames += len(block)
                if not np.isfinite(block).all():
                    text = "some samples are not finite numbers"
                    return AudioCheck(0.0, "undecodable", text), rate
                keep(block)
        lacking = missing_bytes(path)
    # TypeError and ValueError: soundfile takes .raw files for headerless ones.
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        return _failure(path, frames, rate, error), rate
    return _verdict(frames, announced, rate, lacking), rate


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while True:
        block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        yield block.mean(axis=1, dtype=np.float32)


def _look(path: Path) -> AudioCheck | None:
    if path.is_dir():
        return AudioCheck(0.0, "undecodable", "it is a folder")
    if not path.exists():
        return AudioCheck(0.0, "missing", "there is no such file")
    if path.stat().st_size == 0:
        return AudioCheck(0.0, "empty", "it has 0 bytes")
    return None


def _verdict(
    frames: int, announced: int, rate: int, lacking: int
) -> AudioCheck:
    if frames == 0 and not lacking:
        return AudioCheck(0.0, "empty", "it holds no samples")
    duration = frames / rate
    if lacking:
        text = f"its last {lacking} bytes or more are missing"
        return AudioCheck(duration, "truncated", text)
    # mp3: libsndfile reads what there is, without an error.
    if frames < announced - _TOLERANCE_SECONDS * rate:
        text = f"{duration:.2f} s of the announced {announced / rate:.2f} s"
        return AudioCheck(duration, "truncated", f"it holds {text}")
    return AudioCheck(duration)


def _lacking(path: Path) -> int:
    try:
        return missing_bytes(path)
    except OSError:  # not to be read at all, which is what is reported
        return 0


def _failure(
    path: Path, frames: int, rate: int, error: Exception
) -> AudioCheck:
    if frames:
        text = f"it breaks off after {frames / rate:.2f} s"
        return AudioCheck(frames / rate, "truncated", text)
    if lacking := _lacking(path):
        text = f"its last {lacking} bytes or more are missing"
        return AudioCheck(0.0, "truncated", text)
    if path.suffix.lower() in _UNREADABLE:
        text = f"{path.suffix} is not read; convert it to flac, wav or mp3"
    else:
        # libsndfile calls an mp3 that it cannot read a missing file.
        reason = str(error).split(": ")[-1].rstrip(".")
        known = "does not exist" not in reason
        text = reason if known else "the format is not recognised"
    return AudioCheck(0.0, "undecodable", text)
