"""Masking of time spans and channel spans of the features while training.

The rule is that of wav2vec 2.0 (Baevski et al. 2020, section 3.1 and
appendix B; SpecAugment, Park et al. 2019), as the recipes of the papers set
it. It acts on the projected features, before the transformer.
"""

import torch
from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.models.lengths import valid_positions


class SpanMasking(nn.Module):
    """Replace random spans of frames, and zero random spans of channels.

    A clip of T frames gets prob * T / length spans of `length` frames,
    rounded up or down at random so that the expectation is exact. Starts are
    drawn uniformly, without repetition, from all places where a span fits
    inside the clip; spans may overlap, so the share of masked frames is below
    `prob` (0.65 with length 10 masks about half). Channels likewise, with
    D for T. Each clip draws for itself: neither padding nor the other clips
    of the batch have an influence on how much of it is masked.

    Acts in training mode only, and draws from torch's generator of the
    features' device, so a seed reproduces it.

    Arguments
    ---------
    time_prob : float
        Sum of the span lengths over T, at least 0; 0 switches it off.
    time_length : int
        Frames of one span.
    channel_prob : float
        Sum of the channel span lengths over D, at least 0.
    channel_length : int
        Channels of one span.
    min_spans : int
        Lower bound for the number of time spans of a clip.

    Raises
    ------
    SettingError
        If a probability is negative or a length is below 1.

    Example
    -------
    >>> masking = SpanMasking(time_prob=0.65, time_length=10)
    >>> features, frames = torch.ones(2, 100, 8), torch.tensor([100, 60])
    >>> masked = masking(features, frames, torch.zeros(8))
    >>> 0.2 < (masked[0] == 0).float().mean().item() < 0.8
    True
    >>> torch.equal(masked[1, 60:], features[1, 60:])
    True
    """

    def __init__(
        self,
        time_prob: float = 0.65,
        time_length: int = 10,
        channel_prob: float = 0.0,
        channel_length: int = 64,
        min_spans: int = 0,
    ):
        super().__init__()
        for name, prob in (
            ("time_prob", time_prob),
            ("channel_prob", channel_prob),
        ):
            if not prob >= 0:
                raise SettingError(f"{name} is {prob}, but must be at least 0")
        for name, length in (
            ("time_length", time_length),
            ("channel_length", channel_length),
        ):
            if length < 1:
                raise SettingError(
                    f"{name} is {length}, but must be at least 1"
                )
        self.time_prob = time_prob
        self.time_length = time_length
        self.channel_prob = channel_prob
        self.channel_length = channel_length
        self.min_spans = min_spans

    def forward(
        self, features: Tensor, frames: Tensor, mask_embedding: Tensor
    ) -> Tensor:
        """Mask a batch; in evaluation mode return it as it is.

        Arguments
        ---------
        features : torch.Tensor, (B, T, D)
            Projected features.
        frames : torch.Tensor, (B,) int64
            Valid frames of each clip.
        mask_embedding : torch.Tensor, (D,)
            What a masked frame becomes: the vector that the encoder was
            pre-trained with (`masked_spec_embed`).

        Returns
        -------
        torch.Tensor, (B, T, D)
            A new tensor; frames behind a clip's end are untouched.
        """
        if not self.training:
            return features
        batch, time, channels = features.shape
        if self.time_prob > 0 or self.min_spans > 0:
            masked = random_spans(
                frames, time, self.time_prob, self.time_length, self.min_spans
            )
            embedding = mask_embedding.to(features.dtype)
            features = torch.where(masked[:, :, None], embedding, features)
        if self.channel_prob > 0:
            widths = torch.full_like(frames, channels)
            zeroed = random_spans(
                widths, channels, self.channel_prob, self.channel_length
            )
            inside = valid_positions(frames, time)
            zeroed = zeroed[:, None, :] & inside[:, :, None]
            features = features.masked_fill(zeroed, 0.0)
        return features

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return (
            f"time {self.time_prob} x {self.time_length}, "
            f"channel {self.channel_prob} x {self.channel_length}"
        )


def random_spans(
    sizes: Tensor, width: int, prob: float, length: int, min_spans: int = 0
) -> Tensor:
    """Draw the union of random spans for each row.

    Arguments
    ---------
    sizes : torch.Tensor, (B,) int64
        Positions of each row where spans may lie, from 0 on.
    width : int
        Number of positions of the result.
    prob : float
        Sum of the span lengths over the row's size, in expectation.
    length : int
        Positions of one span.
    min_spans : int
        Lower bound for the number of spans.

    Returns
    -------
    torch.Tensor, (B, width) bool
        True where at least one span lies. A row not longer than one span is
        left alone: masking it would leave nothing to recognise.
    """
    device = sizes.device
    wanted = prob * sizes / length
    rounded = (wanted + torch.rand(sizes.shape, device=device)).long()
    places = sizes - length + 1
    spans = torch.minimum(rounded.clamp(min=min_spans), places)
    spans = torch.where(sizes > length, spans, 0)

    # Without repetition: the places with the highest random keys. Bounded by
    # a number known without looking at the tensors, so that nothing waits
    # for the device.
    most = min(width, max(int(prob * width / length) + 1, min_spans))
    keys = torch.rand(len(sizes), width, device=device)
    keys = keys.masked_fill(~valid_positions(places, width), -1.0)
    order = keys.topk(most, dim=1).indices
    chosen = valid_positions(spans, most)
    starts = torch.zeros(len(sizes), width, dtype=torch.int64, device=device)
    starts.scatter_(1, order, chosen.long())

    # A position is masked if a span started at most length - 1 before it.
    started = starts.cumsum(dim=1)
    earlier = torch.nn.functional.pad(started, (length, 0))[:, :width]
    return started > earlier
