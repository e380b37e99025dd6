"""Speed, noise, other talkers and rooms on clean speech.

The input of masked prediction; its targets come from the clean clip, so
`degrade` leaves every sample in its place, and `speed_up` moves them by a
known factor.
"""

from fractions import Fraction

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import resample_poly

#: How much faster a degraded copy may be; small ratios, so that resampling is
#: cheap. Pitch and formants move with it, as between talkers.
SPEEDS = (25 / 30, 25 / 28, 25 / 26, 1.0, 25 / 24, 25 / 22, 25 / 21)


def speed_up(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return a clip played faster; its pitch rises with it.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples,) float32.
    speed : float
        2 is an octave up and half as long; a ratio of small numbers.

    Returns
    -------
    numpy.ndarray
        (samples / speed, rounded up,) float32.

    Example
    -------
    >>> speed_up(np.zeros(100, np.float32), 1.25).shape
    (80,)
    """
    up, down = _ratio(speed)
    if up == down:
        return samples
    return resample_poly(samples, up, down).astype(np.float32)


def sped_up_lengths(lengths: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Return how long clips are after `speed_up`.

    Arguments
    ---------
    lengths : numpy.ndarray
        (clips,) samples of each.
    speeds : numpy.ndarray
        (clips,) speed of each.

    Returns
    -------
    numpy.ndarray
        (clips,) int64.

    Example
    -------
    >>> sped_up_lengths(np.array([100, 7]), np.array([1.25, 1.0])).tolist()
    [80, 7]
    """
    up, down = np.array([_ratio(speed) for speed in speeds]).T
    return -(-lengths * up // down)


def _ratio(speed: float) -> tuple[int, int]:
    ratio = Fraction(speed).limit_denominator(100)
    return ratio.denominator, ratio.numerator


def degrade(
    clean: np.ndarray,
    other: np.ndarray,
    generator: np.random.Generator,
    sample_rate: int = 16000,
) -> np.ndarray:
    """Return a degraded copy of a clip.

    A third of the clips get coloured noise, a third another talker at a
    lower level, and a third a room; noise is added to the rooms too.

    Arguments
    ---------
    clean : numpy.ndarray
        (samples,) float32.
    other : numpy.ndarray
        (samples,) float32 of another clip; repeated or cut as needed.
    generator : numpy.random.Generator
        Decides what and how much.
    sample_rate : int
        Samples per second, for the length of the room.

    Returns
    -------
    numpy.ndarray
        (samples,) float32, aligned with `clean`.

    Example
    -------
    >>> clean = np.sin(np.arange(800.0)).astype(np.float32)
    >>> degrade(clean, clean, np.random.default_rng(0)).shape
    (800,)
    """
    kind = generator.choice(["noise", "talker", "room"])
    if kind == "talker" and other.size:
        noise = np.resize(other, clean.size)
        noise = np.roll(noise, int(generator.integers(clean.size)))
        return _mix(clean, noise, generator.uniform(5.0, 20.0))
    noise = coloured_noise(clean.size, generator.uniform(0, 1.0), generator)
    if kind == "room":
        room = room_response(generator, sample_rate)
        return _mix(_convolve(clean, room), noise, generator.uniform(15, 35))
    return _mix(clean, noise, generator.uniform(3.0, 25.0))


def coloured_noise(
    size: int, slope: float, generator: np.random.Generator
) -> np.ndarray:
    """Return noise whose amplitude falls as frequency ** -slope.

    Arguments
    ---------
    size : int
        Samples.
    slope : float
        0 is white, 0.5 pink, 1 brown.
    generator : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    numpy.ndarray
        (size,) float32.
    """
    # A length without large prime factors: ten times as fast.
    fast = next_fast_len(size, real=True)
    spectrum = rfft(generator.standard_normal(fast, dtype=np.float32))
    order = np.maximum(1, np.arange(spectrum.size, dtype=np.float32))
    return irfft(spectrum * order**-slope, fast)[:size].astype(np.float32)


def room_response(
    generator: np.random.Generator, sample_rate: int
) -> np.ndarray:
    """Return a made-up room: the direct sound and a decaying tail."""
    seconds = generator.uniform(0.1, 0.5)  # until 60 dB below
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    tail = generator.standard_normal(times.size) * 10 ** (-3 * times / seconds)
    tail *= generator.uniform(0.1, 0.5) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)


def _convolve(clean: np.ndarray, room: np.ndarray) -> np.ndarray:
    size = next_fast_len(clean.size + room.size, real=True)
    spectrum = rfft(clean, size) * rfft(room, size)
    return irfft(spectrum, size)[: clean.size].astype(np.float32)


def _mix(clean: np.ndarray, noise: np.ndarray, decibel: float) -> np.ndarray:
    power = np.mean(clean**2) + 1e-10
    scale = np.sqrt(power / (np.mean(noise**2) + 1e-10))
    return (clean + noise * scale * 10 ** (-decibel / 20)).astype(np.float32)
