"""Speech recognition by CTC with a routed encoder.

Source of the loss: Graves et al. (2006). Decoding here is greedy and is the
very function that the device runs (`s3router.runtime.decode`).
"""

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.logger import get_logger

from s3router.brains.base import SubnetworkBrain
from s3router.evaluation.decoding import greedy_ctc
from s3router.evaluation.error_rates import error_rate
from s3router.models.encoder import SSLEncoder

logger = get_logger(__name__)


class CTCBrain(SubnetworkBrain):
    """Trains and evaluates a CTC recogniser.

    Needs, beside the keys of `SubnetworkBrain`: the module `recognizer`
    (`CTCModel`), `ctc_cost`, `span_masking`, and on the object `tokens`,
    `language`, `spaceless` and `unit`.
    """

    tokens = None
    spaceless: bool = False
    unit: str = "word"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.unalignable: set[str] = set()

    def compute_forward(
        self, batch: PaddedBatch, stage: sb.Stage
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and the number of valid frames of each row.

        Arguments
        ---------
        batch : speechbrain.dataio.batch.PaddedBatch
            With `features` (batch, time, channels), or `sig` (batch,
            samples), each with relative lengths.
        stage : speechbrain.Stage
            Spans are masked in `TRAIN` only.

        Returns
        -------
        tuple
            Logits (batch, time, tokens) float32 and frames (batch,) int64.
        """
        batch = batch.to(self.device)
        encoder = self.raw_encoder()
        if hasattr(batch, "features"):
            features, relative = batch.features
            features = features.float()
            frames = (relative * features.shape[1]).round().long()
        else:
            wavs, relative = batch.sig
            samples = (relative * wavs.shape[1]).round().long()
            with torch.no_grad():
                features, frames = encoder.front_end(wavs, samples)
        augment = self.hparams.span_masking if stage == sb.Stage.TRAIN else None
        logits = self.modules.recognizer(features, frames, augment)
        return logits.float(), frames

    def raw_encoder(self) -> SSLEncoder:
        """Return the encoder without the wrapper of distributed training."""
        module = self.modules.recognizer
        return getattr(module, "module", module).encoder

    def compute_objectives(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        batch: PaddedBatch,
        stage: sb.Stage,
    ) -> torch.Tensor:
        """Return the CTC loss; keep the texts when evaluating.

        Arguments
        ---------
        predictions : tuple
            What `compute_forward` returned.
        batch : speechbrain.dataio.batch.PaddedBatch
            With `tokens`, `wrd` and `id`.
        stage : speechbrain.Stage
            Texts are decoded in `VALID` and `TEST`.

        Returns
        -------
        torch.Tensor
            Scalar, mean over the utterances.
        """
        logits, frames = predictions
        tokens, token_lengths = batch.tokens
        loss = self.hparams.ctc_cost(
            logits.log_softmax(-1),
            tokens,
            frames.to(logits.device) / logits.shape[1],
            token_lengths,
        )
        if stage == sb.Stage.TRAIN:
            self._note_unalignable(batch, frames)
        else:
            for row, count in zip(logits, frames.tolist(), strict=True):
                ids = greedy_ctc(row[:count].cpu().numpy())
                self.hypotheses.append(self.tokens.decode(ids))
            self.references.extend(batch.wrd)
            self.utterance_ids.extend(batch.id)
        return loss

    def _note_unalignable(
        self, batch: PaddedBatch, frames: torch.Tensor
    ) -> None:
        # Their loss is infinite and counts as 0: they teach nothing.
        tokens, relative = batch.tokens
        lengths = (relative * tokens.shape[1]).round().long()
        for uid, row, n, t in zip(
            batch.id, tokens, lengths.tolist(), frames.tolist(), strict=True
        ):
            repeats = int((row[1:n] == row[: n - 1]).sum()) if n > 1 else 0
            if n + repeats > t:
                self.unalignable.add(uid)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None):
        """Start collecting the texts of this stage.

        Arguments
        ---------
        stage : speechbrain.Stage
            The stage that begins.
        epoch : int, optional
            The epoch.
        """
        self.references: list[str] = []
        self.hypotheses: list[str] = []
        self.utterance_ids: list[str] = []
        if stage == sb.Stage.TRAIN:
            self.unalignable = set()

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ):
        """Log the stage; after validation, checkpoint.

        Arguments
        ---------
        stage : speechbrain.Stage
            The stage that ends.
        stage_loss : float
            Its mean loss.
        epoch : int, optional
            The epoch.
        """
        if stage == sb.Stage.TRAIN:
            train_stats = {"loss": stage_loss, **self.step_statistics()}
            self.log_epoch(epoch, train_stats=train_stats)
            if self.unalignable and epoch == 1:
                first = ", ".join(sorted(self.unalignable)[:3])
                logger.warning(
                    "%d training utterances have more tokens than frames and "
                    "teach nothing: %s ...",
                    len(self.unalignable),
                    first,
                )
            return
        rates = self.rates()
        stats = {"loss": stage_loss, **rates}
        if stage == sb.Stage.VALID:
            self.log_epoch(epoch, valid_stats=stats)
            self.save_best({**rates, "epoch": epoch}, self.selection_key)

    @property
    def selection_key(self) -> str:
        """The rate whose lowest value on dev chooses the checkpoint."""
        return "CER" if self.unit == "char" else "WER"

    def rates(self) -> dict[str, float]:
        """Return CER and WER in percent over the texts of this stage."""
        return {
            name: 100.0
            * error_rate(
                self.references,
                self.hypotheses,
                unit=unit,
                spaceless=self.spaceless,
                replicates=0,
            ).rate
            for name, unit in (("CER", "char"), ("WER", "word"))
        }
