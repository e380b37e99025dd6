"""Magnitude pruning: the smallest weights are removed, once.

    m_ij = 1 where |w_ij| is among the largest of its matrix (or of all)

Whose weights w are ranked makes the method, as PARP names them (Lai et al.,
NeurIPS 2021, section 2; Frankle and Carbin, ICLR 2019):

- the pre-trained encoder's: MPI, no data is looked at;
- a fine-tuned model's (`start_mask`: its subnetwork): OMP, one-shot pruning;
- those of the round before, again and again: IMP, the lottery ticket, where
  each round starts from the pre-trained weights;
- those of a short training on one language, with `train_weights: False`: the
  LTH extraction of S3Net (Lu et al., ICASSP 2022), whose mask is laid on
  the original weights.

Wherever the mask comes from, the weights under it are the pre-trained ones.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from s3router.masks.ranking import Ranking
from s3router.masks.units import Sparsity
from s3router.methods.fixed_mask import FixedMask
from s3router.methods.start import ranked_start


class MagnitudePruning(FixedMask):
    """Keep the largest weights, then train what is kept.

    Arguments
    ---------
    targets, sparsity, scope, pattern, train_weights
        See `FixedMask`.
    start_mask : str, optional
        Folder of a subnetwork: its weights are ranked, times its mask if it
        has one, so that what it removed stays removed.
    """

    name = "magnitude"
    changes_weights = True

    def __init__(
        self,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
        train_weights: bool | None = None,
        start_mask: str | None = None,
    ):
        super().__init__(targets, sparsity, scope, pattern, train_weights)
        self.start_mask = start_mask

    def find_masks(
        self, encoder: nn.Module, ranking: Ranking
    ) -> dict[str, Tensor]:
        """Rank by |weight|."""
        if self.start_mask is None:
            return ranking.masks(
                {
                    name: encoder.get_submodule(name).weight.detach()
                    for name in ranking.targets
                }
            )
        return ranked_start(self.start_mask, encoder, ranking)
