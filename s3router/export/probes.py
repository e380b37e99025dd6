"""Audio to verify an export with: lengths and signals that find faults."""

import numpy as np

from s3router.models.encoder import SSLEncoder


def stress_lengths(encoder: SSLEncoder) -> list[int]:
    """Return clip lengths at which padding and rounding go wrong first.

    Arguments
    ---------
    encoder : SSLEncoder
        Tells its shortest clip and its hop.

    Returns
    -------
    list of int
        Samples: the shortest clip; a frame's boundary less one, itself, and
        more one; odd ones; one second; about ten seconds.
    """
    shortest, hop = encoder.min_samples, frame_hop(encoder)
    rate = encoder.sample_rate
    boundary = shortest + 9 * hop
    edges = [boundary - 1, boundary, boundary + 1]
    return [shortest, *edges, 12345, 40001, rate, 10 * rate + 77]


def frame_hop(encoder: SSLEncoder) -> int:
    """Return the samples between frames: the product of all strides.

    Arguments
    ---------
    encoder : SSLEncoder
        Any encoder.

    Returns
    -------
    int
        320 for all released encoders.
    """
    return int(np.prod(encoder.model.config.conv_stride))


def probe_signal(samples: int, seed: int) -> np.ndarray:
    """Return a signal like speech in its loudness and spectrum.

    Arguments
    ---------
    samples : int
        Length at 16 kHz.
    seed : int
        Another seed, another signal.

    Returns
    -------
    np.ndarray
        (samples,) float32: gliding harmonics in syllables, and noise.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    pitch = 120 + 60 * rng.random() + 30 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time + rng.random()), 0, 1)
    noise = 0.02 * rng.standard_normal(samples)
    return (0.2 * syllables * voice + noise).astype(np.float32)
