"""Discrete units of speech: what masked prediction has to predict.

HuBERT (Hsu et al., 2021, section II-B): k-means over MFCCs at first, over a
layer of the network itself later. Frames here are those of the encoder's
front end, so that a frame has one unit.
"""

import functools

import numpy as np
import torch
import torchaudio
from torch.nn import functional

from s3router.errors import DataError, SettingError
from s3router.models.frame_grid import RATE, FrameGrid

#: Spectra are taken in frames of 25 ms every 20 ms; slower encoders get
#: several of them side by side.
SPECTRA = FrameGrid(window=400, hop=320)


@functools.cache
def _mel_filters(bins: int) -> torch.Tensor:
    return torchaudio.functional.melscale_fbanks(
        257, 20.0, 7600.0, bins, RATE, norm=None, mel_scale="htk"
    )


def spectra_per_frame(grid: FrameGrid) -> int:
    """Return how many spectra lie in one frame.

    Arguments
    ---------
    grid : FrameGrid
        Of the encoder.

    Returns
    -------
    int
        1 at 20 ms, 2 at 40 ms.

    Raises
    ------
    SettingError
        If the encoder's frames are no multiple of 20 ms.

    Example
    -------
    >>> spectra_per_frame(FrameGrid(window=720, hop=640))
    2
    """
    count, rest = divmod(grid.hop, SPECTRA.hop)
    if rest or count < 1:
        raise SettingError(
            f"the encoder has a frame every {1000 * grid.hop / RATE:g} ms; "
            "pre-training needs a multiple of 20 ms: change conv_stride"
        )
    return count


def log_mel(
    samples: torch.Tensor, bins: int = 40, grid: FrameGrid = SPECTRA
) -> torch.Tensor:
    """Return log mel energies in the frames of the encoder's front end.

    A frame's spectra have their middle where the encoder's frame has its own.

    Arguments
    ---------
    samples : torch.Tensor
        (samples,) or (batch, samples) float32 at 16 kHz, one frame or more.
    bins : int
        Mel bands.
    grid : FrameGrid
        Of the encoder.

    Returns
    -------
    torch.Tensor
        (..., frames, bins * spectra per frame) float32.

    Raises
    ------
    DataError
        If there are fewer samples than one frame takes.
    SettingError
        If the frames are no multiple of 20 ms.

    Example
    -------
    >>> log_mel(torch.zeros(1040)).shape
    torch.Size([3, 40])
    """
    return _side_by_side(
        _log_mel(samples, bins, grid), grid.frames(samples.shape[-1]), grid
    )


def _log_mel(samples: torch.Tensor, bins: int, grid: FrameGrid) -> torch.Tensor:
    if samples.shape[-1] < grid.window:
        raise DataError(
            f"{samples.shape[-1]} samples are too short: a frame takes "
            f"{grid.window} of them ({1000 * grid.window // RATE} ms)"
        )
    # In the middle of what the encoder's frame sees, or around it.
    seen = SPECTRA.window + (spectra_per_frame(grid) - 1) * SPECTRA.hop
    before = (grid.window - seen) // 2
    after = grid.window - seen - before
    samples = functional.pad(samples, (-before, max(0, -after)))
    frames = samples.unfold(-1, SPECTRA.window, SPECTRA.hop)
    frames = frames * torch.hann_window(SPECTRA.window)
    power = torch.fft.rfft(frames, 512).abs().square()
    return torch.log(power @ _mel_filters(bins) + 1e-6)


def _side_by_side(
    spectra: torch.Tensor, frames: int, grid: FrameGrid
) -> torch.Tensor:
    kept = spectra[..., : frames * spectra_per_frame(grid), :]
    return kept.reshape(*spectra.shape[:-2], frames, -1)


def mfcc(
    samples: torch.Tensor, count: int = 13, grid: FrameGrid = SPECTRA
) -> torch.Tensor:
    """Return MFCCs with first and second differences.

    Arguments
    ---------
    samples : torch.Tensor
        (samples,) float32 at 16 kHz.
    count : int
        Coefficients kept of the cosine transform.
    grid : FrameGrid
        Of the encoder.

    Returns
    -------
    torch.Tensor
        (frames, 3 * count * spectra per frame) float32.

    Example
    -------
    >>> mfcc(torch.randn(16000)).shape
    torch.Size([49, 39])
    """
    mel = _log_mel(samples, 40, grid)
    cosines = torchaudio.functional.create_dct(count, mel.shape[-1], "ortho")
    static = mel @ cosines
    delta = torchaudio.functional.compute_deltas(static.T).T
    again = torchaudio.functional.compute_deltas(delta.T).T
    together = torch.cat([static, delta, again], dim=-1)
    return _side_by_side(together, grid.frames(samples.shape[-1]), grid)


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
