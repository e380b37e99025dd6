"""Phones of human speech by frame: packs are aligned once, labels kept.

Labels come from MFCCs alone (`s3router.models.phone_alignment`), so that any
encoder can be measured against them. They are kept as JSON, a few bytes for
each phone.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from s3router.brains.pretrain_audio import as_float
from s3router.data.audio import read_audio
from s3router.data.phone_labels import EXTRA, PhoneClip, read_phone_clips
from s3router.errors import DataError, FormatError
from s3router.formats.files import read_json, sha256_file, write_json
from s3router.models.frame_grid import RATE
from s3router.models.phone_alignment import (
    AlignedClip,
    AlignerSettings,
    align_phones,
)
from s3router.models.units import SPECTRA, mfcc

logger = get_logger(__name__)

_FORMAT = 1


def align_pack(
    manifests: Sequence[str | os.PathLike],
    memory: str | os.PathLike,
    limit: int | None = None,
    seed: int = 0,
    settings: AlignerSettings | None = None,
) -> list[AlignedClip]:
    """Return the phones of a pack's clips by frame, aligned once.

    Arguments
    ---------
    manifests : sequence of str or path
        CSV files of one language, see `read_phone_clips`. More clips make
        better labels: let the train part help where dev is to be labelled.
    memory : str or path
        JSON file of the labels, written whole or not at all. One of other
        clips or settings is replaced.
    limit : int or None
        Draw so many clips of each manifest at most.
    seed : int
        Of the draw.
    settings : AlignerSettings or None
        None: its defaults.

    Returns
    -------
    list of AlignedClip
        Without clips that are too short for their phones.

    Raises
    ------
    NotFoundError
        If a manifest is missing.
    DataError
        If a manifest or a clip is broken, an ID stands in two of the
        manifests, or no clip can be aligned.
    FormatError
        If `memory` is no such file.
    """
    settings = settings or AlignerSettings()
    clips: dict[str, PhoneClip] = {}
    for path in manifests:
        for clip in read_phone_clips(path, limit, seed):
            if clip.id in clips:
                raise DataError(f"{path}: {clip.id!r} stands in two manifests")
            clips[clip.id] = clip
    key = _key(manifests, limit, seed, settings)
    memory = Path(memory)
    if memory.is_file():
        known = _recall(memory, key)
        if known is not None:
            return [AlignedClip(n, clips[n].wav, p) for n, p in known.items()]
    aligned = _align(list(clips.values()), settings)
    written = {clip.id: _runs(clip.phones) for clip in aligned}
    write_json(
        memory, {"format_version": _FORMAT, "key": key, "clips": written}
    )
    return aligned


def _align(
    clips: list[PhoneClip], settings: AlignerSettings
) -> list[AlignedClip]:
    frames: list[np.ndarray] = []
    heard: list[PhoneClip] = []
    for clip in tqdm(clips, desc="MFCC of known phones", leave=False):
        samples = normalised_samples(clip.wav)
        if len(samples) >= SPECTRA.window:
            frames.append(mfcc(torch.from_numpy(samples)).numpy())
            heard.append(clip)
    frames = without_speakers(frames, [clip.speaker for clip in heard])
    labels = align_phones(frames, [clip.words for clip in heard], settings)
    aligned = [
        AlignedClip(clip.id, clip.wav, phones)
        for clip, phones in zip(heard, labels, strict=True)
        if phones is not None
    ]
    if len(aligned) < len(clips):
        logger.warning(
            "%d of %d clips are too short for their phones, and left out",
            len(clips) - len(aligned),
            len(clips),
        )
    return aligned


def normalised_samples(wav: str | os.PathLike) -> np.ndarray:
    """Return a clip as encoders and the aligner hear it.

    Arguments
    ---------
    wav : str or path
        Audio file.

    Returns
    -------
    numpy.ndarray
        (samples,) float32 at 16 kHz, of zero mean and unit variance.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated or no audio.
    """
    return as_float(read_audio(wav, RATE).numpy())


def without_speakers(
    frames: Sequence[np.ndarray], speakers: Sequence[str]
) -> list[np.ndarray]:
    """Return frames without the mean and deviation of their speaker.

    Arguments
    ---------
    frames : sequence of numpy.ndarray
        (frames, width) of each clip.
    speakers : sequence of str
        Speaker of each clip.

    Returns
    -------
    list of numpy.ndarray
        Of the same shapes.

    Example
    -------
    >>> clips = [np.array([[1.0]]), np.array([[3.0]]), np.array([[9.0]])]
    >>> [round(clip[0, 0]) for clip in without_speakers(clips, ["a", "a", "b"])]
    [-1, 1, 0]
    """
    own: dict[str, list[int]] = {}
    for number, speaker in enumerate(speakers):
        own.setdefault(speaker, []).append(number)
    found = list(frames)
    for numbers in own.values():
        together = np.concatenate([frames[number] for number in numbers])
        mean = together.mean(0)
        deviation = np.sqrt(together.var(0) + 1e-6)
        for number in numbers:
            found[number] = (frames[number] - mean) / deviation
    return found


def _key(
    manifests: Sequence[str | os.PathLike],
    limit: int | None,
    seed: int,
    settings: AlignerSettings,
) -> dict:
    """Return all that labels depend on, as JSON returns it."""
    files = [Path(path) for path in manifests]
    files += sorted({path.parent / EXTRA for path in files})
    return {
        "files": [sha256_file(path) for path in files],
        "limit": limit,
        "seed": seed,
        "settings": asdict(settings),
    }


def _recall(memory: Path, key: dict) -> dict[str, np.ndarray] | None:
    """Return labels by clip, None if they are of something else."""
    written = read_json(memory)
    try:
        if written["format_version"] != _FORMAT or written["key"] != key:
            return None
        return {
            number: np.repeat([p for p, _ in runs], [n for _, n in runs])
            for number, runs in written["clips"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{memory} holds no aligned phones: remove it and run again"
        ) from error


def _runs(phones: np.ndarray) -> list[list]:
    """Return each phone and how many frames it lasts."""
    return [[p, len(list(group))] for p, group in groupby(phones.tolist())]
