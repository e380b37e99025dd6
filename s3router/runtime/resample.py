"""Resampling by a windowed sinc, in numpy.

The filter is the one that `torchaudio.functional.resample` uses by default, so
that a device hears what the training heard. It resamples only; reading files
is the work of `audio.py`.

Source: J. O. Smith, Digital Audio Resampling,
https://ccrma.stanford.edu/~jos/resample/
"""

import math

import numpy as np

from s3router.errors import DataError

ZERO_CROSSINGS = 6
ROLLOFF = 0.99

# Outputs that are computed at once: bounds the memory to a few megabytes.
_BLOCK = 1 << 15


def resample(
    samples: np.ndarray, source_rate: int, target_rate: int
) -> np.ndarray:
    """Return a signal at another sample rate.

    Output n is the signal at time n / target_rate, low-pass filtered by a
    Hann-windowed sinc with `ZERO_CROSSINGS` zero crossings on each side and
    its cut-off at `ROLLOFF` times the lower of the two Nyquist frequencies.

    Arguments
    ---------
    samples : np.ndarray
        (samples,) float32, at `source_rate`.
    source_rate : int
        Samples per second of the input.
    target_rate : int
        Samples per second of the output.

    Returns
    -------
    np.ndarray
        (ceil(samples * target_rate / source_rate),) float32.

    Raises
    ------
    DataError
        If a rate is not a positive whole number.

    Example
    -------
    >>> resample(np.ones(800, dtype=np.float32), 8000, 16000).shape
    (1600,)
    """
    for rate in (source_rate, target_rate):
        if int(rate) != rate or rate <= 0:
            raise DataError(
                f"a sample rate must be a positive whole number of Hz, not "
                f"{rate}"
            )
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    divisor = math.gcd(int(source_rate), int(target_rate))
    down, up = int(source_rate) // divisor, int(target_rate) // divisor
    if down == up or len(samples) == 0:
        return samples
    table, left = _filter_bank(down, up)
    return _apply(samples, table, left, down, up)


def _filter_bank(down: int, up: int) -> tuple[np.ndarray, int]:
    """Return one filter per output phase, and the taps left of its centre.

    Output n lies at input position n * down / up; its fractional part takes
    `up` values, the phases. Filter taps run over input offsets
    -left ... left + 1 from the whole part.
    """
    # Cut-off, as a share of the input's Nyquist frequency.
    cutoff = ROLLOFF * min(1.0, up / down)
    left = math.ceil(ZERO_CROSSINGS / cutoff)
    phase = (np.arange(up, dtype=np.float64) * down % up) / up
    offset = np.arange(-left, left + 2, dtype=np.float64)
    time = (offset[None, :] - phase[:, None]) * cutoff
    window = np.where(
        np.abs(time) < ZERO_CROSSINGS,
        np.cos(np.pi * time / (2 * ZERO_CROSSINGS)) ** 2,
        0.0,
    )
    # float64 until here: phases of awkward rate pairs are close together.
    return (cutoff * np.sinc(time) * window).astype(np.float32), left


def _apply(
    samples: np.ndarray, table: np.ndarray, left: int, down: int, up: int
) -> np.ndarray:
    """Return the filtered signal, a block of outputs at a time."""
    taps = table.shape[1]
    padded = np.pad(samples, (left, taps))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps)
    length = -(-len(samples) * up // down)
    output = np.empty(length, dtype=np.float32)
    for start in range(0, length, _BLOCK):
        n = np.arange(start, min(start + _BLOCK, length), dtype=np.int64)
        whole, phase = n * down // up, n % up
        np.einsum(
            "nt,nt->n",
            windows[whole],
            table[phase],
            out=output[n[0] : n[-1] + 1],
        )
    return output
