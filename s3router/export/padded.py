"""An encoder as a graph that takes padded batches and their lengths.

What onnx-asr runs: audio as it was recorded, padded at the end, and the length
of each clip. Normalisation, the masks of padding and the log-softmax are in
the graph, so that a clip reads in any batch as it does alone.
"""

import torch
from torch import Tensor

from s3router.export.fold import FoldedModel
from s3router.models.lengths import valid_positions
from s3router.runtime.session import INPUT, LENGTHS, LOGPROBS

#: A log-probability that no frame has: finite, or sums of them were not.
NEVER = -1e4


class PaddedModel(FoldedModel):
    """A folded model behind its own normalisation and masks of padding.

    Arguments
    ---------
    model : FoldedModel
        Encoder and CTC head.
    blank : int
        Id of the CTC blank: what frames of padding are.
    """

    inputs = (INPUT, LENGTHS)
    output = LOGPROBS

    def __init__(self, model: FoldedModel, blank: int) -> None:
        super().__init__(model.encoder, model.head)
        row = torch.full((model.head.linear.out_features,), NEVER)
        row[blank] = 0.0
        self.register_buffer("padding", row, persistent=False)

    def forward(self, input_values: Tensor, input_lengths: Tensor) -> Tensor:
        """Return log-probabilities.

        Arguments
        ---------
        input_values : torch.Tensor
            (N, samples) float32, as recorded.
        input_lengths : torch.Tensor
            (N,) int64, samples of each clip.

        Returns
        -------
        torch.Tensor
            (N, frames, tokens) float32; blank, surely, in the padding: the
            client counts up to two frames more than a clip has.
        """
        features, frames = self.encoder.front_end(input_values, input_lengths)
        hidden = self.encoder.contextualize(features, frames)
        logprobs = self.head(hidden).log_softmax(-1)
        valid = valid_positions(frames, logprobs.shape[1])
        return torch.where(valid[:, :, None], logprobs, self.padding)
