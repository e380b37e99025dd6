"""Chooses the layer whose units become the next targets, by a measure.

The same sentences spoken by two synthetic voices: good units are the same at
the same place, whoever speaks. Measured as normalised mutual information of
the two unit sequences along a warping path; 0 is chance, 1 the same units.
Synthetic speech costs no labels, and any pool can be measured with it.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch
from torch import nn

from s3router.brains.pretrain_audio import as_float
from s3router.brains.pretrain_units import LayerFrames
from s3router.data.espeak import SPEAKERS, synthesize
from s3router.data.ragged import Ragged
from s3router.data.synthetic_text import TABLES, sentences
from s3router.models.units import assign_units, fit_units, mfcc

#: Few, so that the counts of pairs of units are not too thin.
UNITS = 50
FIT_FRAMES = 20000


def parallel_speech(
    count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return sentences in two voices each.

    Arguments
    ---------
    count : int
        Sentences, in turn in the languages of the synthetic texts.
    seed : int
        Of texts and voices.

    Returns
    -------
    list of tuple of numpy.ndarray
        Normalised samples at 16 kHz, first and second voice.
    """
    generator = np.random.default_rng(seed)
    texts = {name: sentences(name, seed) for name in sorted(TABLES)}
    pairs = []
    for number, language in enumerate(islice(cycle(texts), count)):
        text = next(texts[language])
        voices = generator.choice(SPEAKERS, 2, replace=False)
        pairs.append(
            tuple(
                as_float(
                    synthesize(text, language, str(v), 160, 50, number)
                )
                for v in voices
            )
        )
    return pairs


def warping_path(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return which frames of two utterances belong together.

    Arguments
    ---------
    first, second : numpy.ndarray
        (frames, width) each.

    Returns
    -------
    numpy.ndarray
        (steps, 2) int64, from the first frames to the last ones.

    Example
    -------
    >>> a = np.array([[0.0], [1.0]])
    >>> warping_path(a, np.array([[0.0], [0.0], [1.0]])).tolist()
    [[0, 0], [0, 1], [1, 2]]
    """
    cost = np.square(first[:, None] - second[None]).sum(-1)
    total = np.full((len(first) + 1, len(second) + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(len(first)):
        for j in range(len(second)):
            best = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = cost[i, j] + best
    i, j = len(first) - 1, len(second) - 1
    path = [(i, j)]
    while i > 0 or j > 0:
        moves = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(moves, key=lambda move: total[move[0] + 1, move[1] + 1])
        path.append((i, j))
    return np.array(path[::-1])


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return normalised mutual information of two sequences.

    Arguments
    ---------
    first, second : numpy.ndarray
        (frames,) units, as non-negative integers.

    Returns
    -------
    float
        Over the geometric mean of both entropies; 0 if one is constant.

    Example
    -------
    >>> units = np.array([0, 1, 2, 0])
    >>> round(mutual_information(units, units), 6)
    1.0
    """
    joint = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(joint, (first.astype(int), second.astype(int)), 1.0)
    joint /= joint.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    spread = np.sqrt(_entropy(rows) * _entropy(columns))
    if spread == 0:
        return 0.0
    shared = _entropy(rows) + _entropy(columns) - _entropy(joint.ravel())
    return float(shared / spread)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def layer_agreement(
    model: nn.Module,
    front_end: nn.Module,
    features: Ragged,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> list[float]:
    """Measure how far the units of each layer do not depend on the voice.

    Arguments
    ---------
    model : torch.nn.Module
        A `UnitPredictor`.
    front_end : torch.nn.Module
        (1, samples) to (1, channels, frames).
    features : Ragged
        Of the pool, on which k-means is fitted.
    pairs : sequence of tuple of numpy.ndarray
        As of `parallel_speech`.
    seed : int
        Of the draw and of k-means.

    Returns
    -------
    list of float
        One for the transformer's input, then one for each block.
    """
    frames = LayerFrames(model, features, 0)
    generator = np.random.default_rng(seed)
    pool: list[list[np.ndarray]] = []
    left = FIT_FRAMES
    for index in generator.permutation(len(features)):
        layers = [_numpy(x) for x in frames.layers(int(index))]
        pool.append(layers)
        left -= len(layers[0])
        if left <= 0:
            break
    centres = [
        fit_units(np.concatenate(layer), UNITS, seed)
        for layer in zip(*pool, strict=True)
    ]
    sequences: list[list[tuple[np.ndarray, np.ndarray]]] = [
        [] for _ in centres
    ]
    for pair in pairs:
        path = warping_path(*(_shape(samples) for samples in pair))
        both = [_layers(frames, front_end, samples) for samples in pair]
        for layer, centre in enumerate(centres):
            units = [assign_units(one[layer], centre) for one in both]
            sequences[layer].append((units[0][path[:, 0]], units[1][path[:, 1]]))
    return [
        mutual_information(
            *(np.concatenate(side) for side in zip(*layer, strict=True))
        )
        for layer in sequences
    ]


def _numpy(layer: torch.Tensor) -> np.ndarray:
    return layer[0].float().cpu().numpy()


def _shape(samples: np.ndarray) -> np.ndarray:
    """Return MFCCs without the voice's mean and spread, for the path."""
    frames = mfcc(torch.from_numpy(samples)).numpy()
    return (frames - frames.mean(0)) / (frames.std(0) + 1e-5)


@torch.no_grad()
def _layers(
    frames: LayerFrames, front_end: nn.Module, samples: np.ndarray
) -> list[np.ndarray]:
    device = next(front_end.parameters()).device
    out = front_end(torch.from_numpy(samples)[None].to(device))
    return [_numpy(x) for x in frames.of(out[0].T.float().cpu().numpy())]
