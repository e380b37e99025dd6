"""Brain of wav2vec 2.0: tells the hidden frame from others of its clip.

Baevski et al., 2020, section 3.2, with the clean clip's frozen features as what
is quantised, and degraded ones as input.
"""

import numpy as np
import speechbrain as sb
import torch

from s3router.brains.main_process import process_number
from s3router.brains.pretrain import PretrainBrain
from s3router.data.contrastive_crops import ContrastiveBatch
from s3router.models.contrastive import (
    ContrastiveLoss,
    contrastive_loss,
    gumbel_noise,
)


class ContrastiveBrain(PretrainBrain):
    """Contrastive loss plus diversity of the codebooks.

    Needs `contrastive` (the block of the recipe) and `seed` in `hparams`.
    """

    @property
    def code_temperature(self) -> float:
        """Temperature of the Gumbel softmax now; falls geometrically."""
        first, last = self.hparams.contrastive["code_temperature"]
        return first * (last / first) ** min(1.0, self.progress)

    def compute_forward(
        self, batch: ContrastiveBatch, stage: sb.Stage
    ) -> ContrastiveLoss:
        """Return the parts of the loss."""
        batch = batch.to(self.device, non_blocking=True)
        settings = self.hparams.contrastive
        noise = None
        if stage == sb.Stage.TRAIN:
            books, codes = settings["codebooks"], settings["codes"]
            shape = (len(batch.chosen), books, codes)
            noise = gumbel_noise(shape, self._step_seed(), self.device)
        contexts, candidates, quantised = self.modules.model(
            batch.features,
            batch.frames,
            batch.hidden,
            batch.chosen,
            batch.targets,
            self.code_temperature,
            noise,
        )
        self.sums.add(
            frames=int(batch.frames.sum()), masked_frames=len(batch.chosen)
        )
        return contrastive_loss(
            contexts,
            candidates,
            quantised,
            batch.distractors,
            settings["temperature"],
        )

    def _step_seed(self) -> int:
        # Of seed, step and process: what a resumed run draws again. Within
        # accumulated gradients, steps of the loader are told apart.
        words = [
            self.hparams.seed,
            self.optimizer_step,
            self.step,
            process_number()[0],
        ]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def objective(
        self, predictions: ContrastiveLoss, batch: ContrastiveBatch
    ) -> torch.Tensor:
        """Return contrastive loss plus weighted diversity loss."""
        found = predictions
        count = len(batch.chosen)
        self.sums.add(
            contrast=found.contrast * count,
            right=found.right,
            counted=found.counted,
            chance=found.chance,
            perplexity=found.perplexity,
            diversity=found.diversity,
        )
        weight = self.hparams.contrastive["diversity_weight"]
        return found.contrast + weight * found.diversity

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """Return what the curve shows.

        Perplexity is that of a batch, all codebooks together, at most
        codebooks * codes; chance is the accuracy of guessing.
        """
        if not sums:
            return {}
        counted = max(1.0, sums["counted"])
        batches = max(1.0, sums["batches"])
        frames = max(1.0, sums["frames"])
        return {
            "contrastive_loss": sums["contrast"]
            / max(1.0, sums["masked_frames"]),
            "contrastive_accuracy": sums["right"] / counted,
            "contrastive_chance": sums["chance"] / counted,
            "diversity_loss": sums["diversity"] / batches,
            "code_perplexity": sums["perplexity"] / batches,
            "masked_share": sums["masked_frames"] / frames,
            "hours": sums["frames"] / self.hparams.frames_per_second / 3600,
        }
