"""What reads the encoder's output. A head never reaches into the encoder."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from s3router.errors import MismatchError
from s3router.models.lengths import valid_positions


class CTCHead(nn.Module):
    """A linear layer from hidden states to token logits for CTC.

    Arguments
    ---------
    hidden_size : int
        Width D of the hidden states.
    vocab_size : int
        Number of tokens V, blank included.
    dropout : float
        On the hidden states while training.
    init_std : float
        Standard deviation of the initial weights. Small, so that training
        starts from nearly uniform token probabilities and the first
        gradients that reach the encoder's scores are not noise of the head.

    Example
    -------
    >>> head = CTCHead(hidden_size=8, vocab_size=5)
    >>> head(torch.zeros(2, 3, 8)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        dropout: float = 0.0,
        init_std: float = 0.02,
    ):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, vocab_size)
        nn.init.normal_(self.linear.weight, std=init_std)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits.

        Arguments
        ---------
        hidden : torch.Tensor, (B, T, D)
            Output of the encoder.

        Returns
        -------
        torch.Tensor, (B, T, V)
            Logits, not normalised.
        """
        return self.linear(self.dropout(hidden))

    def to_numpy(self) -> dict[str, np.ndarray]:
        """Return the weights as a subnetwork stores them.

        Returns
        -------
        dict of str to numpy.ndarray, float32
            "weight" (V, D) and "bias" (V,).
        """
        return {
            name: value.detach().float().cpu().numpy().copy()
            for name, value in self.linear.named_parameters()
        }

    @torch.no_grad()
    def load_numpy(self, weights: Mapping[str, np.ndarray]) -> None:
        """Copy stored weights into this head.

        Arguments
        ---------
        weights : mapping of str to numpy.ndarray
            As `to_numpy` returned them.

        Raises
        ------
        MismatchError
            If a name is missing or unknown, or a shape differs.
        """
        mine = dict(self.linear.named_parameters())
        if set(weights) != set(mine):
            raise MismatchError(
                f"a CTC head has {sorted(mine)}, but the stored head has "
                f"{sorted(weights)}"
            )
        for name, parameter in mine.items():
            if tuple(weights[name].shape) != tuple(parameter.shape):
                raise MismatchError(
                    f"head {name} has shape {tuple(parameter.shape)}, but the "
                    f"stored one {tuple(weights[name].shape)}: other tokens "
                    f"or another encoder?"
                )
        for name, parameter in mine.items():
            parameter.copy_(torch.from_numpy(np.array(weights[name])))

    @classmethod
    def from_numpy(
        cls, weights: Mapping[str, np.ndarray], dropout: float = 0.0
    ) -> "CTCHead":
        """Build a head of the stored size and weights.

        Arguments
        ---------
        weights : mapping of str to numpy.ndarray
            As `to_numpy` returned them.
        dropout : float
            On the hidden states while training.

        Returns
        -------
        CTCHead
            With the stored weights.
        """
        if "weight" not in weights:
            raise MismatchError(
                f"the stored head has no 'weight', only {sorted(weights)}"
            )
        vocab_size, hidden_size = weights["weight"].shape
        head = cls(hidden_size, vocab_size, dropout)
        head.load_numpy(weights)
        return head


class ClassificationHead(CTCHead):
    """Class logits of a whole clip: the mean over its frames, then linear.

    Stored as a CTC head is, under the same names: "weight" (classes, D) and
    "bias" (classes,).

    Arguments
    ---------
    hidden_size : int
        Width D of the hidden states.
    vocab_size : int
        Number of classes.
    dropout : float
        On the pooled states while training.
    init_std : float
        Standard deviation of the initial weights.

    Example
    -------
    >>> head = ClassificationHead(hidden_size=8, vocab_size=5)
    >>> head(torch.zeros(2, 3, 8), torch.tensor([3, 1])).shape
    torch.Size([2, 5])
    """

    def forward(self, hidden: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return the logits of each clip.

        Arguments
        ---------
        hidden : torch.Tensor, (B, T, D)
            Output of the encoder; the padding may hold anything.
        frames : torch.Tensor, (B,) int64, optional
            Valid frames of each clip; all of them if left out.

        Returns
        -------
        torch.Tensor, (B, classes)
            Logits, not normalised.
        """
        if frames is None:
            return super().forward(hidden.mean(dim=1))
        frames = frames.to(hidden.device)
        inside = valid_positions(frames, hidden.shape[1])[:, :, None]
        total = hidden.masked_fill(~inside, 0.0).sum(dim=1)
        return super().forward(total / frames[:, None])


#: What reads the encoder, by the task of a subnetwork.
HEADS = {"ctc": CTCHead, "classification": ClassificationHead}
