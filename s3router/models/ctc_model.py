"""Encoder and CTC head as one module, so that DDP wraps them once."""

from torch import Tensor, nn

from s3router.models.encoder import SSLEncoder
from s3router.models.heads import CTCHead
from s3router.models.spec_augment import SpanMasking


class CTCModel(nn.Module):
    """From front-end features to logits.

    The front end is frozen in every method and may be cached, so it is called
    apart, as `encoder.front_end`.

    Arguments
    ---------
    encoder : SSLEncoder
        The encoder, with its masks in place.
    head : CTCHead
        The head over the encoder's last layer.
    """

    def __init__(self, encoder: SSLEncoder, head: CTCHead):
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(
        self,
        features: Tensor,
        frames: Tensor,
        augment: SpanMasking | None = None,
    ) -> Tensor:
        """Return logits.

        Arguments
        ---------
        features : torch.Tensor
            (batch, time, channels) output of `encoder.front_end`.
        frames : torch.Tensor
            (batch,) int64, the valid frames of each row.
        augment : SpanMasking, optional
            Masks spans of time and channels; for training only.

        Returns
        -------
        torch.Tensor
            (batch, time, tokens) float, not normalised.
        """
        hidden = self.encoder.contextualize(features, frames, augment)
        return self.head(hidden)
