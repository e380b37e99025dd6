"""Pre-training's audio: decoded once, degraded, through the front end once.

Each pass over the pool writes one file, whole or not at all, and is skipped
where the file is there.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from s3router.data.audio import read_audio
from s3router.data.degrade import degrade
from s3router.data.manifest import Utterance
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import read_json, write_json
from s3router.models.units import RATE, WINDOW, log_mel

#: Clips are cut to multiples of so many samples (0.1 s): CPU kernels are
#: compiled per length, which took six times as long as running them.
STEP = 1600


def decode_pool(
    rows: Sequence[Utterance], path: Path, longest_seconds: float = 30.0
) -> tuple[Ragged, list[dict]]:
    """Decode a pool once; cut long clips into equal parts.

    Arguments
    ---------
    rows : sequence of Utterance
        The pool.
    path : pathlib.Path
        Gets int16 samples at 16 kHz; `<path>.items.json` says whose they are.
    longest_seconds : float
        Longest part.

    Returns
    -------
    Ragged
        The samples.
    list of dict
        `language`, `speaker` and `id` of each item.
    """
    described = path.with_name(path.name + ".items.json")
    items: list[dict] = []

    def parts() -> Iterator[np.ndarray]:
        for row in tqdm(rows, desc="decode", unit="clip"):
            samples = read_audio(row["wav"], RATE).numpy()
            peak = max(1.0, float(np.abs(samples).max(initial=0.0)))
            whole = np.round(samples / peak * 32767).astype(np.int16)
            count = int(np.ceil(whole.size / (longest_seconds * RATE)))
            for part in np.array_split(whole, max(1, count)):
                if part.size < WINDOW or not part.any():
                    continue
                items.append(
                    {
                        "id": row["ID"],
                        "language": row["language"],
                        "speaker": row["spk_id"],
                    }
                )
                yield part

    if not (Ragged.exists(path) and described.is_file()):
        write_ragged(path, parts(), "int16")
        write_json(described, {"format_version": 1, "items": items})
    return Ragged(path, "int16"), read_json(described)["items"]


def held_out(items: Sequence[dict], share: float) -> np.ndarray:
    """Return which items validate, by a hash of their clip's ID.

    Arguments
    ---------
    items : sequence of dict
        As of `decode_pool`.
    share : float
        About how many.

    Returns
    -------
    numpy.ndarray
        (items,) bool; one or more True and one or more False.

    Raises
    ------
    DataError
        If there are fewer than two clips.
    """
    hashes = np.array(
        [zlib.crc32(item["id"].encode()) % 100003 for item in items]
    )
    if len(set(hashes)) < 2:
        raise DataError("pre-training needs two clips or more")
    low = np.unique(hashes)[max(0, round(share * len(set(hashes))) - 1)]
    return hashes <= min(low, np.unique(hashes)[-2])


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return int16 samples with zero mean and unit variance, float32."""
    wave = samples.astype(np.float32)
    wave -= wave.mean()
    return wave / np.sqrt(wave.var() + 1e-5)


def degraded_item(audio: Ragged, index: int, seed: int) -> np.ndarray:
    """Return one item's degraded samples, normalised again."""
    generator = np.random.default_rng([seed, index])
    other = audio[int(generator.integers(len(audio)))]
    return as_float(degrade(as_float(audio[index]), as_float(other), generator))


class MelCrops(Dataset):
    """Batches of degraded crops with log mel bands of the clean ones.

    Item i depends on seed, epoch and i alone.

    Arguments
    ---------
    audio : Ragged
        Decoded samples.
    probabilities : numpy.ndarray
        (items,) how likely each is drawn.
    batches : int
        In an epoch.
    clips, seconds : int, float
        Crops of a batch, and their length; shorter clips are repeated.
    bins : int
        Mel bands.
    seed : int
        Of everything that is drawn.
    """

    def __init__(
        self,
        audio: Ragged,
        probabilities: np.ndarray,
        batches: int,
        clips: int = 8,
        seconds: float = 3.0,
        bins: int = 80,
        seed: int = 0,
    ) -> None:
        self.audio = audio
        self.probabilities = probabilities / probabilities.sum()
        self.batches = batches
        self.clips = clips
        self.samples = max(WINDOW, int(seconds * RATE))
        self.bins = bins
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides what is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        drawn = generator.choice(
            len(self.audio), self.clips + 1, p=self.probabilities
        )
        clean = [self._crop(clip, generator) for clip in drawn]
        noisy = [
            as_float(degrade(clean[i], clean[i + 1], generator))
            for i in range(self.clips)
        ]
        bands = log_mel(torch.from_numpy(np.stack(clean[:-1])), self.bins)
        deviation, mean = torch.std_mean(bands, dim=1, keepdim=True)
        return (
            torch.from_numpy(np.stack(noisy)),
            (bands - mean) / (deviation + 0.1),
        )

    def _crop(self, clip: int, generator: np.random.Generator) -> np.ndarray:
        samples = self.audio[clip]
        first = int(generator.integers(max(1, samples.size - self.samples)))
        part = samples[first : first + self.samples]
        return as_float(np.resize(part, self.samples))


def cache_features(
    front_end: nn.Module, audio: Ragged, path: Path, seed: int | None
) -> Ragged:
    """Run the frozen front end once over all clips, one at a time.

    Arguments
    ---------
    front_end : torch.nn.Module
        (1, samples) to (1, channels, frames).
    audio : Ragged
        Decoded samples.
    path : pathlib.Path
        Gets float16 features.
    seed : int or None
        Degrade the clips with this seed; None: clean.

    Returns
    -------
    Ragged
        (frames, channels) per clip.
    """
    device = next(front_end.parameters()).device

    def features() -> Iterator[np.ndarray]:
        name = "clean" if seed is None else f"degraded {seed}"
        for index in tqdm(range(len(audio)), desc=f"features, {name}"):
            if seed is None:
                wave = as_float(audio[index])
            else:
                wave = degraded_item(audio, index, seed)
            wave = wave[: max(WINDOW, wave.size // STEP * STEP)]
            out = front_end(torch.from_numpy(wave)[None].to(device))
            yield out[0].T.half().cpu().numpy()

    if not Ragged.exists(path):
        with torch.no_grad():
            write_ragged(path, features(), "float16")
    return Ragged(path, "float16")
