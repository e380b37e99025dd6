"""Taylor pruning: removed is what the loss would miss least.

    importance_ij = sum over batches of (g_ij * w_ij)^2,  g = d loss / d w

the first-order estimate of the squared change of the loss when a weight is
removed (Molchanov et al., CVPR 2019), accumulated over labelled batches, as
S3Net extracts its masks without training (Lu et al., ICASSP 2022, mask TE).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from s3router.errors import SettingError, whole_number
from s3router.masks.ranking import Ranking
from s3router.masks.units import Sparsity
from s3router.methods.base import BatchLoss
from s3router.methods.fixed_mask import FixedMask


class TaylorPruning(FixedMask):
    """Keep the weights of the largest importance, then train what is kept.

    Arguments
    ---------
    targets, sparsity, scope, pattern, train_weights
        See `FixedMask`.
    taylor_batches : int
        Training batches that are looked at.
    """

    name = "taylor"
    changes_weights = True

    def __init__(
        self,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
        train_weights: bool | None = None,
        taylor_batches: int = 50,
    ):
        super().__init__(targets, sparsity, scope, pattern, train_weights)
        self.taylor_batches = whole_number("taylor_batches", taylor_batches)

    def find_masks(self, encoder: nn.Module, ranking: Ranking) -> None:
        """Wait for `before_fit`."""

    def before_fit(
        self, batches: Callable[[], Iterator], loss: BatchLoss
    ) -> None:
        """Accumulate the importance of every weight, and select.

        Arguments
        ---------
        batches, loss : callable
            See `Method.before_fit`.

        Raises
        ------
        SettingError
            If there is no batch.
        """
        names, weights = zip(*self._masked.items(), strict=True)
        trained = [weight.requires_grad for weight in weights]
        for weight in weights:
            weight.requires_grad_(True)
        importance = [torch.zeros_like(weight) for weight in weights]
        seen = 0
        for batch in itertools.islice(
            self._endless(batches), self.taylor_batches
        ):
            gradients = torch.autograd.grad(loss(batch), weights)
            for total, gradient, weight in zip(
                importance, gradients, weights, strict=True
            ):
                total += (gradient * weight.detach()).square_()
            seen += 1
        if not seen:
            raise SettingError("taylor: there is no training batch to look at")
        for weight, was in zip(weights, trained, strict=True):
            weight.requires_grad_(was)
        # The root ranks alike; groups take the root of the sum of squares.
        roots = [_of_all_processes(total).sqrt_() for total in importance]
        saliency = dict(zip(names, roots, strict=True))
        self.set_masks(self.ranking.masks(saliency))

    def describe(self) -> dict:
        """Return the method's name and its settings."""
        return {**super().describe(), "taylor_batches": self.taylor_batches}

    @staticmethod
    def _endless(batches: Callable[[], Iterator]) -> Iterator:
        """Yield batches, epoch after epoch; nothing where an epoch is empty."""
        while True:
            empty = True
            for batch in batches():
                empty = False
                yield batch
            if empty:
                return


def _of_all_processes(total: Tensor) -> Tensor:
    """Return the sum over all processes, so that their masks are the same."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    return total
