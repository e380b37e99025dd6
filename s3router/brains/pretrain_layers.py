"""Chooses the layer whose units become the next targets, by a measure.

The measure is phone-normalised mutual information (PNMI; Hsu et al., 2021,
HuBERT, section IV-E): the share of what there is to know about the phone that
the unit tells. Phones are those of synthetic speech, which come for nothing
and with their times, in ten languages and many voices; the units are fitted
on the pool.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch
from torch import nn

from s3router.brains.pretrain_audio import as_float
from s3router.brains.pretrain_units import LayerFrames
from s3router.data.espeak import SPEAKERS, synthesize_phones
from s3router.data.ragged import Ragged
from s3router.data.synthetic_text import TABLES, sentences
from s3router.models.units import HOP, WINDOW, assign_units, fit_units

#: Few, so that the counts of pairs of unit and phone are not too thin.
UNITS = 100
FIT_FRAMES = 20000


def spoken_phones(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return synthetic sentences with the phone of each frame.

    Arguments
    ---------
    count : int
        Sentences, in turn in the languages of the synthetic texts.
    seed : int
        Of texts and voices.

    Returns
    -------
    list of tuple of numpy.ndarray
        Normalised samples at 16 kHz, and (frames,) phones as text, "" in
        pauses.
    """
    generator = np.random.default_rng(seed)
    texts = {name: sentences(name, seed) for name in sorted(TABLES)}
    spoken = []
    for number, language in enumerate(islice(cycle(texts), count)):
        samples, phones = synthesize_phones(
            next(texts[language]),
            language,
            str(generator.choice(SPEAKERS)),
            int(generator.integers(130, 200)),
            int(generator.integers(30, 70)),
            number,
        )
        spoken.append((as_float(samples), phones_of_frames(samples, phones)))
    return spoken


def phones_of_frames(
    samples: np.ndarray, phones: Sequence[tuple[str, int]]
) -> np.ndarray:
    """Return the phone at the middle of each frame.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples,) at 16 kHz.
    phones : sequence of tuple
        Phone and its first sample, in order.

    Returns
    -------
    numpy.ndarray
        (frames,) text; stress marks are removed, pauses are "".

    Example
    -------
    >>> phones_of_frames(np.zeros(1040), [("'a", 0), ("_:", 400)]).tolist()
    ['a', '', '']
    """
    middles = np.arange((len(samples) - WINDOW) // HOP + 1) * HOP + WINDOW // 2
    starts = [start for _, start in phones]
    names = [""] + [
        "" if name.startswith("_") else name.lstrip("',") for name, _ in phones
    ]
    return np.array(names)[np.searchsorted(starts, middles, side="right")]


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
    _, labels = np.unique(phones, return_inverse=True)
    joint = np.zeros((int(units.max()) + 1, int(labels.max()) + 1))
    np.add.at(joint, (units.astype(int), labels), 1.0)
    joint /= joint.sum()
    phone = _entropy(joint.sum(0))
    if phone == 0:
        return 0.0
    shared = _entropy(joint.sum(1)) + phone - _entropy(joint.ravel())
    return float(max(0.0, shared) / phone)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def layer_information(
    model: nn.Module,
    front_end: nn.Module,
    features: Ragged,
    spoken: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> list[float]:
    """Measure what the units of each layer tell about the phone.

    Arguments
    ---------
    model : torch.nn.Module
        A `UnitPredictor`.
    front_end : torch.nn.Module
        (1, samples) to (1, channels, frames).
    features : Ragged
        Of the pool, on which k-means is fitted.
    spoken : sequence of tuple of numpy.ndarray
        As of `spoken_phones`.
    seed : int
        Of the draw and of k-means.

    Returns
    -------
    list of float
        One for the transformer's input, then one for each block.
    """
    frames = LayerFrames(model, features, len(model.transformer.layers))
    pool: list[list[np.ndarray]] = []
    left = FIT_FRAMES
    for index in np.random.default_rng(seed).permutation(len(features)):
        pool.append(frames.layers(features[int(index)]))
        left -= len(pool[-1][0])
        if left <= 0:
            break
    count = min(UNITS, FIT_FRAMES - left)
    centres = [
        fit_units(np.concatenate(layer), count, seed)
        for layer in zip(*pool, strict=True)
    ]
    units: list[list[np.ndarray]] = [[] for _ in centres]
    phones: list[np.ndarray] = []
    for samples, labels in spoken:
        heard = labels != ""
        phones.append(labels[heard])
        layers = frames.layers(_front_end(front_end, samples))
        for layer, centre, kept in zip(layers, centres, units, strict=True):
            kept.append(assign_units(layer, centre)[heard])
    return [
        phone_information(np.concatenate(kept), np.concatenate(phones))
        for kept in units
    ]


@torch.no_grad()
def _front_end(front_end: nn.Module, samples: np.ndarray) -> np.ndarray:
    device = next(front_end.parameters()).device
    out = front_end(torch.from_numpy(samples)[None].to(device))
    return out[0].T.float().cpu().numpy()
