"""Decodes pre-training's pool, once, into one file of samples.

Long clips are read part by part, so that memory is bounded whatever is found.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from s3router.data.audio import read_audio
from s3router.data.manifest import Utterance
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import read_json, write_json
from s3router.models.frame_grid import RATE

logger = get_logger(__name__)


def decode_pool(
    rows: Sequence[Utterance],
    path: Path,
    shortest: int,
    longest_seconds: float = 30.0,
) -> tuple[Ragged, list[dict]]:
    """Decode a pool once; cut long clips into equal parts.

    Arguments
    ---------
    rows : sequence of Utterance
        The pool.
    path : pathlib.Path
        Gets int16 samples at 16 kHz; `<path>.items.json` says whose they are.
    shortest : int
        Samples below which a clip is left out: those of one frame.
    longest_seconds : float
        Longest part.

    Returns
    -------
    Ragged
        The samples.
    list of dict
        `language`, `speaker` and `id` of each item.

    Raises
    ------
    DataError
        If a file cannot be decoded, or no clip is left.
    """
    described = path.with_name(path.name + ".items.json")
    items: list[dict] = []
    short: list[str] = []

    def parts() -> Iterator[np.ndarray]:
        for row in tqdm(rows, desc="decode", unit="clip"):
            kept = len(items)
            for part in _parts(row, longest_seconds):
                if part.size < shortest or not part.any():
                    continue
                items.append(
                    {
                        "id": row["ID"],
                        "language": row["language"],
                        "speaker": row["spk_id"],
                    }
                )
                yield part
            if len(items) == kept:
                short.append(row["ID"])
        if not items:
            raise DataError(
                f"no clip of the pool can be used: each is silent, or has "
                f"fewer than {shortest} samples "
                f"({1000 * shortest / RATE:g} ms), one frame of the encoder"
            )

    if not (Ragged.exists(path) and described.is_file()):
        write_ragged(path, parts(), "int16")
        write_json(described, {"format_version": 1, "items": items})
    if short:
        logger.warning(
            "%d clips are silent or shorter than one frame, and left out "
            "(as %s)",
            len(short),
            short[0],
        )
    return Ragged(path, "int16"), read_json(described)["items"]


def _parts(row: Utterance, longest_seconds: float) -> Iterator[np.ndarray]:
    """Yield the int16 samples of a clip in about equal parts."""
    count = max(1, int(np.ceil(row["duration"] / longest_seconds)))
    if count == 1:
        yield _as_int16(read_audio(row["wav"], RATE))
        return
    # Part by part: an hour of stereo would take gigabytes as a whole.
    try:
        with soundfile.SoundFile(row["wav"]) as file:
            rate = file.samplerate
            size = int(np.ceil(row["duration"] * rate / count))
            # Not by the header, which for an mp3 is an estimate.
            while len(block := file.read(size, "float32", always_2d=True)):
                mono = torch.from_numpy(block.mean(axis=1, dtype=np.float32))
                if rate != RATE:
                    mono = torchaudio.functional.resample(mono, rate, RATE)
                yield _as_int16(mono)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"undecodable audio file {row['wav']}: {error}"
        ) from error


def _as_int16(samples: torch.Tensor) -> np.ndarray:
    wave = samples.numpy()
    peak = max(1.0, float(np.abs(wave).max(initial=0.0)))
    return np.round(wave / peak * 32767).astype(np.int16)
