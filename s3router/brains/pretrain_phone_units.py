"""Phones of synthetic speech as targets: known exactly, and for nothing.

A seed for the iterations that follow, in place of units of MFCCs: clips
without known phones, as all human ones, have no targets here and are not
drawn. Training on labels of another source first is that of PBERT (Wang et
al., 2022, "Supervision-guided codebooks for masked prediction"), whose labels
come from a recogniser.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from s3router.brains.pretrain_layers import phones_of_frames
from s3router.brains.pretrain_units import (
    units_exist,
    units_record,
    write_units,
)
from s3router.data.crops import UNKNOWN
from s3router.data.ragged import Ragged
from s3router.errors import DataError, FormatError
from s3router.formats.files import read_json
from s3router.models.frame_grid import FrameGrid
from s3router.models.units import unit_statistics

#: A phone with fewer frames in the pool is no unit.
LEAST_FRAMES = 200

_ADVICE = (
    "set synthetic_hours (and another --output_folder, if the pool was "
    "gathered before), or begin with of: mfcc"
)


def phones_beside(wav: str) -> list[tuple[str, int]] | None:
    """Return the phones of a clip, where a file beside it tells them.

    Arguments
    ---------
    wav : str
        The clip, as `a.flac`; `a.json` beside it is a list of pairs.

    Returns
    -------
    list of tuple or None
        Phone and its first sample, in order. None where there is no such
        file, or a JSON of something else, as recordings may have.
    """
    path = Path(wav).with_suffix(".json")
    if not path.is_file():
        return None
    try:
        pairs = [(name, start) for name, start in read_json(path)]
    except (FormatError, TypeError, ValueError):
        return None
    starts = [start for _, start in pairs]
    named = all(isinstance(name, str) for name, _ in pairs)
    timed = all(isinstance(start, int) for start in starts)
    if not (pairs and named and timed and starts == sorted(starts)):
        return None
    return pairs


def check_known(
    wavs: Sequence[str], held_out: np.ndarray, iterations: Sequence[Mapping]
) -> None:
    """Refuse phones as targets where too few clips have known ones.

    Arguments
    ---------
    wavs : sequence of str
        File of each clip of the pool.
    held_out : numpy.ndarray
        (clips,) bool, which validate.
    iterations : sequence of mapping
        Of the recipe.

    Raises
    ------
    DataError
        If none of the clips that train has known phones, or none of those
        that validate.
    """
    if all(iteration.get("of") != "phones" for iteration in iterations):
        return
    known = np.array([phones_beside(wav) is not None for wav in wavs])
    if not (known & ~held_out).any():
        raise DataError(
            f"units of phones need synthetic speech, whose phones are known: "
            f"{_ADVICE}"
        )
    if not (known & held_out).any():
        raise DataError(
            "none of the clips that are held out has known phones: raise "
            "held_out_share or synthetic_hours, or begin with of: mfcc"
        )


def unit_count(number: int, hparams: Mapping) -> int:
    """Return how many units an iteration has.

    Arguments
    ---------
    number : int
        Of the iteration, from 1; its units are there.
    hparams : mapping
        With `iterations` and `work_folder`.

    Returns
    -------
    int
        As asked for; phones among them, as many as were found.
    """
    iteration = hparams["iterations"][number - 1]
    if iteration["of"] != "phones" and not iteration.get("keep_phones"):
        return iteration["units"]
    path = Path(hparams["work_folder"]) / f"units_{number}.u16"
    return len(read_json(units_record(path))["names"])


def make_phone_units(
    wavs: Sequence[str],
    samples: Sequence[int],
    frames: Sequence[int],
    grid: FrameGrid,
    path: Path,
    made_with: Mapping[str, object] | None = None,
    least: int = LEAST_FRAMES,
) -> Ragged:
    """Write the phone of each frame, where it is known.

    Arguments
    ---------
    wavs : sequence of str
        File of each clip, see `phones_beside`. Of a long clip that was cut
        into several no phone is known: their times are those of the whole.
    samples, frames : sequence of int
        Length of each clip, and of its features.
    grid : FrameGrid
        Of the encoder.
    path : pathlib.Path
        Gets uint16 units, `UNKNOWN` where the phone is not known or rare;
        `<path>.json` their statistics and `names`.
    made_with : mapping
        Settings to note beside the statistics.
    least : int
        See `LEAST_FRAMES`.

    Returns
    -------
    Ragged
        (frames,) per clip.

    Raises
    ------
    DataError
        If fewer than two phones are known well enough.
    """
    if units_exist(path):
        return Ragged(path, "uint16")
    known = list(_labels(wavs, samples, frames, grid))
    counts = Counter(
        name for labels in known if labels is not None for name in labels
    )
    names = sorted(name for name, count in counts.items() if count >= least)
    if len(names) < 2:
        raise DataError(
            f"units of phones need two or more with {least} frames or more, "
            f"here are {len(names)}: {_ADVICE}"
        )
    number = {name: index for index, name in enumerate(names)}

    def units() -> Iterator[np.ndarray]:
        for labels, length in zip(known, frames, strict=True):
            row = np.full(int(length), UNKNOWN, dtype=np.uint16)
            if labels is not None:
                row[: len(labels)] = [number.get(n, UNKNOWN) for n in labels]
            yield row

    statistics = unit_statistics(np.array([counts[name] for name in names]))
    return write_units(
        path,
        units(),
        lambda: {**statistics, "names": names, **(made_with or {})},
    )


def keep_known_phones(
    found: Path,
    known: Path,
    path: Path,
    made_with: Mapping[str, object] | None = None,
) -> Ragged:
    """Let clips whose phones are known keep them; the others have found units.

    Arguments
    ---------
    found : pathlib.Path
        Units of all clips, as of `make_units`.
    known : pathlib.Path
        As of `make_phone_units`.
    path : pathlib.Path
        Gets uint16 units: the phones, then the found units behind them.
        `<path>.json` their statistics and `names`.
    made_with : mapping
        Settings to note beside the statistics.

    Returns
    -------
    Ragged
        (frames,) per clip.
    """
    if units_exist(path):
        return Ragged(path, "uint16")
    units, phones = Ragged(found, "uint16"), Ragged(known, "uint16")
    names = list(read_json(units_record(known))["names"])
    first = len(names)
    most = 1 + max(int(units[clip].max()) for clip in range(len(units)))
    names += [f"unit {number}" for number in range(most)]
    counts = np.zeros(len(names), dtype=np.int64)

    def rows() -> Iterator[np.ndarray]:
        for clip in range(len(units)):
            row = np.asarray(phones[clip])
            if not (row != UNKNOWN).any():
                row = (units[clip] + first).astype(np.uint16)
            told = row[row != UNKNOWN]
            np.add(counts, np.bincount(told, minlength=len(names)), out=counts)
            yield row

    return write_units(
        path,
        rows(),
        lambda: {
            **unit_statistics(counts),
            "names": names,
            **(made_with or {}),
        },
    )


def _labels(
    wavs: Sequence[str],
    samples: Sequence[int],
    frames: Sequence[int],
    grid: FrameGrid,
) -> Iterator[list[str] | None]:
    """Yield the phones of each clip by frame, None where not known."""
    parts = Counter(wavs)
    for wav, size, length in zip(
        tqdm(wavs, desc="phones"), samples, frames, strict=True
    ):
        phones = phones_beside(wav) if parts[wav] == 1 else None
        if phones is None:
            yield None
            continue
        heard = np.empty(int(size), dtype=np.int8)
        yield phones_of_frames(heard, phones, grid)[: int(length)].tolist()


def clips_with_targets(units: Ragged) -> np.ndarray:
    """Return (clips,) bool: which have a target in any frame."""
    return np.array(
        [bool((units[clip] != UNKNOWN).any()) for clip in range(len(units))]
    )
