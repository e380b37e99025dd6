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
from tqdm import tqdm

from s3router.brains.pretrain_audio import STEP, as_float
from s3router.brains.pretrain_phones import phone_information
from s3router.brains.pretrain_units import LayerFrames
from s3router.data.espeak import SPEAKERS, synthesize_phones
from s3router.data.synthetic_text import TABLES, sentences
from s3router.models.frame_grid import FrameGrid
from s3router.models.phone_directions import (
    PhoneDirections,
    fit_phone_directions,
)
from s3router.models.units import SPECTRA, assign_units, fit_units

#: Few, so that the counts of pairs of unit and phone are not too thin.
UNITS = 100
FIT_FRAMES = 20000


def spoken_phones(
    count: int, seed: int, grid: FrameGrid
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return synthetic sentences with the phone of each frame.

    Arguments
    ---------
    count : int
        Sentences, in turn in the languages of the synthetic texts.
    seed : int
        Of texts and voices.
    grid : FrameGrid
        Of the encoder.

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
        # Few lengths: CPU kernels are compiled for each.
        samples = samples[: max(grid.window, len(samples) // STEP * STEP)]
        labels = phones_of_frames(samples, phones, grid)
        spoken.append((as_float(samples), labels))
    return spoken


def phones_of_frames(
    samples: np.ndarray,
    phones: Sequence[tuple[str, int]],
    grid: FrameGrid = SPECTRA,
) -> np.ndarray:
    """Return the phone at the middle of each frame.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples,) at 16 kHz.
    phones : sequence of tuple
        Phone and its first sample, in order.
    grid : FrameGrid
        Of the encoder.

    Returns
    -------
    numpy.ndarray
        (frames,) text; stress marks are removed, pauses are "".

    Example
    -------
    >>> phones_of_frames(np.zeros(1040), [("'a", 0), ("_:", 400)]).tolist()
    ['a', '', '']
    """
    middles = grid.middles(grid.frames(len(samples)))
    starts = [start for _, start in phones]
    names = [""] + [
        "" if name.startswith("_") else name.lstrip("',") for name, _ in phones
    ]
    return np.array(names)[np.searchsorted(starts, middles, side="right")]


class SpokenLayers:
    """What every layer says to sentences whose phones are known.

    Arguments
    ---------
    frames : LayerFrames
        Of the last layer, which knows all below.
    front_end : torch.nn.Module
        (1, samples) to (1, channels, frames).
    spoken : sequence of tuple of numpy.ndarray
        As of `spoken_phones`; pauses are left out.
    """

    def __init__(
        self,
        frames: LayerFrames,
        front_end: nn.Module,
        spoken: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        layers: list[list[np.ndarray]] = []
        phones: list[np.ndarray] = []
        half: list[np.ndarray] = []
        for number, (samples, labels) in enumerate(
            tqdm(spoken, desc="layers of known phones")
        ):
            heard = labels != ""
            phones.append(labels[heard])
            half.append(np.full(heard.sum(), number % 2 == 0))
            states = frames.layers(_front_end(front_end, samples))
            layers.append([state[heard] for state in states])
        self.layers = [np.concatenate(one) for one in zip(*layers, strict=True)]
        self.phones = np.concatenate(phones)
        #: Directions are fitted on every other sentence, measured on the rest.
        self.fitted = np.concatenate(half)

    def directions(
        self, layer: int, count: int, everything: bool = True
    ) -> PhoneDirections | None:
        """Return directions of a layer, None if none are wanted.

        Arguments
        ---------
        layer : int
            0 is the transformer's input.
        count : int
            Directions; 0: None.
        everything : bool
            Fit on all sentences; False: on those that are not measured.

        Returns
        -------
        PhoneDirections or None
            The projection.
        """
        if not count:
            return None
        chosen = self.fitted | everything
        return fit_phone_directions(
            self.layers[layer][chosen], self.phones[chosen], count
        )


def layer_information(
    frames: LayerFrames, known: SpokenLayers, directions: int, seed: int
) -> list[float]:
    """Measure what the units of each layer tell about the phone.

    Arguments
    ---------
    frames : LayerFrames
        Of the pool, on which k-means is fitted; of the last layer.
    known : SpokenLayers
        Sentences whose phones are known.
    directions : int
        See `SpokenLayers.directions`.
    seed : int
        Of the draw and of k-means.

    Returns
    -------
    list of float
        One for the transformer's input, then one for each block.
    """
    pool: list[list[np.ndarray]] = []
    left = FIT_FRAMES
    for index in np.random.default_rng(seed).permutation(len(frames)):
        pool.append(frames.layers(frames.features[int(index)]))
        left -= len(pool[-1][0])
        if left <= 0:
            break
    count = min(UNITS, FIT_FRAMES - left)
    information = []
    for layer, parts in enumerate(zip(*pool, strict=True)):
        drawn = np.concatenate(parts)
        measured = known.layers[layer][~known.fitted]
        project = known.directions(layer, directions, everything=False)
        if project is not None:
            drawn, measured = project(drawn), project(measured)
        centres = fit_units(drawn, count, seed)
        information.append(
            phone_information(
                assign_units(measured, centres), known.phones[~known.fitted]
            )
        )
    return information


@torch.no_grad()
def _front_end(front_end: nn.Module, samples: np.ndarray) -> np.ndarray:
    device = next(front_end.parameters()).device
    out = front_end(torch.from_numpy(samples)[None].to(device))
    return out[0].T.float().cpu().numpy()
