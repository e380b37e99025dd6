"""What units tell about the phones that people spoke.

HuBERT's measures (Hsu et al., 2021, section IV-E): phone purity, cluster
purity and phone-normalised mutual information (PNMI), against labels by
frame. Where labels come from is `s3router.brains.pretrain_alignment`'s.
"""

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from s3router.brains.pretrain_alignment import normalised_samples
from s3router.brains.pretrain_audio import STEP
from s3router.errors import DataError, MismatchError
from s3router.models.frame_grid import RATE, FrameGrid
from s3router.models.phone_alignment import AlignedClip
from s3router.models.state_paths import SILENCE


def phone_information(units: np.ndarray, phones: np.ndarray) -> float:
    """Return mutual information of unit and phone over that of the phone.

    Arguments
    ---------
    units : numpy.ndarray
        (frames,) non-negative integers.
    phones : numpy.ndarray
        (frames,) labels.

    Returns
    -------
    float
        0 where units tell nothing, 1 where they tell the phone.

    Example
    -------
    >>> phones = np.array(["a", "b", "a", "b"])
    >>> round(phone_information(np.array([3, 5, 4, 5]), phones), 6)
    1.0
    >>> phone_information(np.array([1, 1, 2, 2]), phones)
    0.0
    """
    return _information(_joint(units, phones))


def phone_statistics(
    units: np.ndarray, phones: np.ndarray
) -> dict[str, float | int]:
    """Return how units and phones go together.

    Arguments
    ---------
    units : numpy.ndarray
        (frames,) non-negative integers.
    phones : numpy.ndarray
        (frames,) text; frames of silence ("") are left out.

    Returns
    -------
    dict
        `pnmi`; `pnmi_by_chance`, that of the same units in another order,
        which grows as units grow many and frames few; `phone_purity`, share
        of frames whose phone is the commonest of their unit;
        `cluster_purity`, share whose unit is the commonest of their phone;
        `commonest_phone`, phone purity of a single unit; and the numbers of
        `frames`, `units` and `phones` that occur.

    Raises
    ------
    DataError
        If the two have different lengths, or there is only silence.

    Example
    -------
    >>> found = phone_statistics(
    ...     np.array([3, 3, 5, 4]), np.array(["a", "b", "b", ""]))
    >>> [round(found[name], 3) for name in ("phone_purity", "pnmi")]
    [0.667, 0.274]
    """
    if len(units) != len(phones):
        raise DataError(f"{len(units)} units cannot have {len(phones)} phones")
    heard = phones != SILENCE
    if not heard.any():
        raise DataError("no frame has a phone: all are silence")
    units, phones = units[heard], phones[heard]
    joint = _joint(units, phones)
    shuffled = np.random.default_rng(0).permutation(units)
    return {
        "pnmi": _information(joint),
        "pnmi_by_chance": _information(_joint(shuffled, phones)),
        "phone_purity": float(joint.max(1).sum()),
        "cluster_purity": float(joint.max(0).sum()),
        "commonest_phone": float(joint.sum(0).max()),
        "frames": len(units),
        "units": joint.shape[0],
        "phones": joint.shape[1],
    }


def clip_frames(
    measures: Sequence[Callable[[np.ndarray], np.ndarray]],
    aligned: Sequence[AlignedClip],
    grid: FrameGrid,
) -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """Return frames of clips whose phones are known, and the phones.

    Arguments
    ---------
    measures : sequence of callable
        Each takes (samples,) float32 at 16 kHz of zero mean and unit
        variance, and returns (frames, ...).
    aligned : sequence of AlignedClip
        As of `align_pack`; all of one set of phones.
    grid : FrameGrid
        Of the encoder that is measured.

    Returns
    -------
    dict
        What each of `measures` returned, by the clip's ID; without clips that
        are too short for a frame.
    numpy.ndarray
        (frames of all clips,) text.

    Raises
    ------
    MismatchError
        If one returns another number of frames than the grid has.
    DataError
        If a clip cannot be read, or all are too short.
    """
    kept: dict[str, list[np.ndarray]] = {}
    phones: list[np.ndarray] = []
    for clip in tqdm(aligned, desc="frames of known phones", leave=False):
        samples = normalised_samples(clip.wav)
        # Few lengths: CPU kernels are compiled for each.
        samples = samples[: len(samples) // STEP * STEP]
        count = grid.frames(len(samples))
        if count == 0:
            continue
        found = [np.asarray(measure(samples)) for measure in measures]
        for one in found:
            if one.shape[:1] != (count,):
                raise MismatchError(
                    f"clip {clip.id} has {count} frames of {grid.hop} samples, "
                    f"but what is measured has the shape {one.shape}"
                )
        kept[clip.id] = found
        phones.append(clip.on(grid, count))
    if not kept:
        raise DataError(
            f"none of {len(aligned)} aligned clips is as long as "
            f"{max(STEP, grid.window) / RATE:g} s"
        )
    return kept, np.concatenate(phones)


def _joint(units: np.ndarray, phones: np.ndarray) -> np.ndarray:
    """Return (units, phones) shares of frames, of those that occur."""
    names, rows = np.unique(units, return_inverse=True)
    labels, columns = np.unique(phones, return_inverse=True)
    cells = np.bincount(
        rows * len(labels) + columns, minlength=len(names) * len(labels)
    )
    return cells.reshape(len(names), len(labels)) / len(units)


def _information(joint: np.ndarray) -> float:
    phone = _entropy(joint.sum(0))
    if phone == 0:
        return 0.0
    shared = _entropy(joint.sum(1)) + phone - _entropy(joint.ravel())
    return float(min(max(0.0, shared) / phone, 1.0))


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
