"""Discrete units of speech: what masked prediction has to predict.

HuBERT (Hsu et al., 2021, section II-B): k-means over MFCCs at first, over a
layer of the network itself later. Frames here are those of the encoder's
front end (20 ms), so that a frame has one unit.
"""

import functools

import numpy as np
import torch
import torchaudio

from s3router.errors import DataError

WINDOW, HOP, RATE = 400, 320, 16000


@functools.cache
def _mel_filters(bins: int) -> torch.Tensor:
    return torchaudio.functional.melscale_fbanks(
        257, 20.0, 7600.0, bins, RATE, norm=None, mel_scale="htk"
    )


def log_mel(samples: torch.Tensor, bins: int = 40) -> torch.Tensor:
    """Return log mel energies in the frames of the encoder's front end.

    Frame t sees the samples 320 t to 320 t + 400, as the stack of
    convolutions of wav2vec 2.0 and HuBERT does.

    Arguments
    ---------
    samples : torch.Tensor
        (samples,) or (batch, samples) float32 at 16 kHz, 400 or more.
    bins : int
        Mel bands.

    Returns
    -------
    torch.Tensor
        (..., frames, bins) float32.

    Raises
    ------
    DataError
        If there are fewer samples than one frame takes.

    Example
    -------
    >>> log_mel(torch.zeros(1040)).shape
    torch.Size([3, 40])
    """
    if samples.shape[-1] < WINDOW:
        raise DataError(
            f"{samples.shape[-1]} samples are too short: a frame takes "
            f"{WINDOW} of them ({1000 * WINDOW // RATE} ms)"
        )
    frames = samples.unfold(-1, WINDOW, HOP) * torch.hann_window(WINDOW)
    power = torch.fft.rfft(frames, 512).abs().square()
    return torch.log(power @ _mel_filters(bins) + 1e-6)


def mfcc(samples: torch.Tensor, count: int = 13) -> torch.Tensor:
    """Return MFCCs with first and second differences.

    Arguments
    ---------
    samples : torch.Tensor
        (samples,) float32 at 16 kHz.
    count : int
        Coefficients kept of the cosine transform.

    Returns
    -------
    torch.Tensor
        (frames, 3 * count) float32.

    Example
    -------
    >>> mfcc(torch.randn(16000)).shape
    torch.Size([49, 39])
    """
    mel = log_mel(samples)
    cosines = torchaudio.functional.create_dct(count, mel.shape[-1], "ortho")
    static = mel @ cosines
    delta = torchaudio.functional.compute_deltas(static.T).T
    return torch.cat(
        [
            static,
            delta,
            torchaudio.functional.compute_deltas(delta.T).T,
        ],
        dim=-1,
    )


def fit_units(frames: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the centres of k-means.

    Arguments
    ---------
    frames : numpy.ndarray
        (frames, width) float32, a random draw of the pool.
    count : int
        Number of units.
    seed : int
        Of the start.

    Returns
    -------
    numpy.ndarray
        (count, width) float32.

    Raises
    ------
    DataError
        If there are fewer frames than units.
    """
    if len(frames) < count:
        raise DataError(
            f"{len(frames)} frames cannot make {count} units: give more audio "
            "or ask for fewer units"
        )
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        count,
        batch_size=min(10000, len(frames)),
        max_iter=100,
        n_init=3,
        random_state=seed,
        reassignment_ratio=0.01,
    )
    return model.fit(frames.astype(np.float32)).cluster_centers_.astype("f4")


def assign_units(frames: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the nearest centre of each frame.

    Arguments
    ---------
    frames : numpy.ndarray
        (frames, width).
    centres : numpy.ndarray
        (count, width).

    Returns
    -------
    numpy.ndarray
        (frames,) uint16.

    Example
    -------
    >>> assign_units(np.array([[0.9], [4.0]]), np.array([[1.0], [5.0]]))
    array([0, 1], dtype=uint16)
    """
    # The frame's own square is the same for every centre.
    distance = np.square(centres).sum(1) - 2.0 * frames @ centres.T
    return distance.argmin(1).astype(np.uint16)


def unit_statistics(counts: np.ndarray) -> dict[str, float]:
    """Return how evenly units are used.

    Arguments
    ---------
    counts : numpy.ndarray
        (units,) how often each occurs.

    Returns
    -------
    dict
        `unigram_entropy` in nats, the loss of a network that learnt nothing
        but the frequencies; `unigram_accuracy`, its accuracy; `used`, units
        that occur.

    Example
    -------
    >>> unit_statistics(np.array([1, 1, 0]))["used"]
    2
    """
    share = counts[counts > 0] / counts.sum()
    return {
        "unigram_entropy": float(-(share * np.log(share)).sum()),
        "unigram_accuracy": float(share.max()),
        "used": int(share.size),
    }
