"""Frame arithmetic of the conv front end: samples to frames and back.

The convs have no padding: frame i depends on samples
[i * stride, i * stride + window), so a clip's frames never reach into the
padding behind it. Tensors only; must not know of models.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from s3router.errors import DataError


def frames_of(
    samples: Tensor, kernels: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """Return how many frames each clip gives.

    Arguments
    ---------
    samples : torch.Tensor, (B,) int64
        Lengths of the clips in samples.
    kernels, strides : sequence of int
        Of the convs, first to last.

    Returns
    -------
    torch.Tensor, (B,) int64
        Numbers of frames, never below 0.

    Example
    -------
    >>> wav2vec2 = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    >>> frames_of(torch.tensor([399, 400, 16000]), *wav2vec2)
    tensor([ 0,  1, 49])
    """
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
        samples = samples.clamp(min=0)
    return samples


def shortest_clip(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of samples that gives exactly one frame.

    Arguments
    ---------
    kernels, strides : sequence of int
        Of the convs, first to last.

    Returns
    -------
    int
        400 (25 ms at 16 kHz) for all released encoders.

    Example
    -------
    >>> shortest_clip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    400
    """
    samples = 1
    for kernel, stride in zip(
        reversed(kernels), reversed(strides), strict=True
    ):
        samples = (samples - 1) * stride + kernel
    return samples


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """Return which positions lie inside each clip.

    Arguments
    ---------
    lengths : torch.Tensor, (B,) int64
        Number of valid positions of each row.
    size : int
        Number of positions, padding included.

    Returns
    -------
    torch.Tensor, (B, size) bool
        True inside the clip.

    Example
    -------
    >>> valid_positions(torch.tensor([1, 3]), 3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    positions = torch.arange(size, device=lengths.device)
    return positions[None, :] < lengths[:, None]


def check_lengths(lengths: Tensor, size: int, shortest: int) -> None:
    """Refuse clips without a frame, and lengths beyond the batch.

    Arguments
    ---------
    lengths : torch.Tensor, (B,) int64
        Valid samples of each clip.
    size : int
        Samples of the batch, padding included.
    shortest : int
        Samples that give one frame.

    Raises
    ------
    DataError
        Naming the clip and both numbers.
    """
    # Looks at values, which a graph cannot.
    if torch.compiler.is_compiling():
        return
    if int(lengths.min()) < shortest:
        raise DataError(
            f"clip {int(lengths.argmin())} of the batch has "
            f"{int(lengths.min())} samples, but one frame of this encoder "
            f"needs {shortest}"
        )
    if int(lengths.max()) > size:
        raise DataError(
            f"lengths say {int(lengths.max())} samples, but the batch has "
            f"only {size} (front_end takes samples, forward shares in (0, 1])"
        )
