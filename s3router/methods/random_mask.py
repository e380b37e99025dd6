"""A random mask: the control that every other mask must beat.

    m_ij = 1 where u_ij is among the largest of its matrix (or of all),
    u_ij uniform in [0, 1)

S3Net (Lu et al., ICASSP 2022, ablation) found random masks worse than none
at all, PARP and the lottery ticket have them as controls.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s3router.errors import whole_number
from s3router.masks.init import generator_of
from s3router.masks.ranking import Ranking
from s3router.masks.units import Sparsity
from s3router.methods.fixed_mask import FixedMask


class RandomMask(FixedMask):
    """Keep a random share of the weights, then train what is kept.

    Arguments
    ---------
    targets, sparsity, scope, pattern, train_weights
        See `FixedMask`.
    seed : int
        Of the mask.
    """

    name = "random"
    changes_weights = True

    def __init__(
        self,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
        train_weights: bool | None = None,
        seed: int = 0,
    ):
        super().__init__(targets, sparsity, scope, pattern, train_weights)
        self.seed = whole_number("seed", seed, least=0)

    def find_masks(
        self, encoder: nn.Module, ranking: Ranking
    ) -> dict[str, Tensor]:
        """Rank by random numbers, the same on every machine."""
        return ranking.masks(
            {
                name: torch.rand(
                    encoder.get_submodule(name).weight.shape,
                    generator=generator_of(self.seed, name),
                )
                for name in ranking.targets
            }
        )

    def describe(self) -> dict:
        """Return the method's name and its settings."""
        return {**super().describe(), "seed": self.seed}
