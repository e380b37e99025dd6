"""What pre-training puts around the encoder, and takes off again afterwards."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import PreTrainedModel

from s3router.errors import SettingError
from s3router.models.frame_grid import FrameGrid
from s3router.models.transformer import (
    run_feature_projection,
    run_transformer,
)
from s3router.models.units import spectra_per_frame


class MelRegressor(nn.Module):
    """Front end and projection with a linear read-out of log mel bands.

    Teaches the convolutions to be a filter bank before the transformer
    trains: from scratch, both together stay at the unigram entropy.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        Its front end and feature projection are used.
    bins : int
        Mel bands, of each of the spectra in a frame.
    """

    def __init__(self, encoder: PreTrainedModel, bins: int) -> None:
        super().__init__()
        self.front_end = encoder.feature_extractor
        self.projection = encoder.feature_projection
        self.read_out = nn.Linear(
            encoder.config.hidden_size,
            bins * spectra_per_frame(FrameGrid.of(encoder.config)),
        )

    def forward(self, wavs: torch.Tensor) -> torch.Tensor:
        """Return predicted bands.

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples), normalised, no padding.

        Returns
        -------
        torch.Tensor
            (batch, frames, bins * spectra per frame).
        """
        features = self.front_end(wavs).transpose(1, 2)
        return self.read_out(run_feature_projection(self.projection, features))


class MaskedEncoder(nn.Module):
    """Encoder on features of its frozen front end, some frames hidden.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        All but its front end trains.

    Raises
    ------
    SettingError
        If it has nothing to put in the place of hidden frames.
    """

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        if not hasattr(encoder, "masked_spec_embed"):
            raise SettingError(
                "the encoder has no mask embedding: set mask_time_prob of "
                "encoder_config above 0"
            )
        self.projection = encoder.feature_projection
        self.mask_embedding = encoder.masked_spec_embed
        self.transformer = encoder.encoder

    def states(
        self,
        features: torch.Tensor,
        frames: torch.Tensor,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the encoder's output.

        Arguments
        ---------
        features : torch.Tensor
            (batch, frames, channels) output of the front end.
        frames : torch.Tensor
            (batch,) int64, valid frames; on the CPU nothing is waited for.
        hidden : torch.Tensor
            (batch, frames) bool, what the encoder does not see.

        Returns
        -------
        torch.Tensor
            (batch, frames, width).
        """
        states = run_feature_projection(self.projection, features)
        if hidden is not None:
            embedding = self.mask_embedding.to(states.dtype)
            states = torch.where(hidden.unsqueeze(-1), embedding, states)
        # Not transformers' own forward: it writes the padding by an index,
        # which takes seconds a batch in bfloat16 on a CPU.
        valid = _valid(features, frames)
        return run_transformer(self.transformer, states, valid)

    def layers(
        self, features: torch.Tensor, frames: torch.Tensor, last: int
    ) -> list[torch.Tensor]:
        """Return what the first blocks give out.

        Arguments
        ---------
        features : torch.Tensor
            (batch, frames, channels) output of the front end.
        frames : torch.Tensor
            (batch,) int64, valid frames.
        last : int
            How many blocks to run.

        Returns
        -------
        list of torch.Tensor
            (batch, frames, width) each: the input of the first block, then
            the output of each of the `last` first blocks.
        """
        encoder = self.transformer
        lower = SimpleNamespace(
            config=encoder.config,
            pos_conv_embed=encoder.pos_conv_embed,
            dropout=encoder.dropout,
            layer_norm=encoder.layer_norm,
            layers=encoder.layers[:last],
        )
        outputs: list[torch.Tensor] = []
        run_transformer(
            lower,
            run_feature_projection(self.projection, features),
            _valid(features, frames),
            outputs,
        )
        return outputs


class UnitPredictor(MaskedEncoder):
    """A masked encoder with a head over units.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        All but its front end trains.
    units : int
        Number of units.
    """

    def __init__(self, encoder: PreTrainedModel, units: int) -> None:
        super().__init__(encoder)
        self.read_out = nn.Linear(encoder.config.hidden_size, units)

    def forward(
        self,
        features: torch.Tensor,
        frames: torch.Tensor,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits over units, (batch, frames, units).

        Arguments
        ---------
        features, frames, hidden : torch.Tensor
            See `MaskedEncoder.states`.
        """
        return self.read_out(self.states(features, frames, hidden))


def _valid(features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor | None:
    longest = features.shape[1]
    if int(frames.min()) == longest:
        return None
    index = torch.arange(longest, device=features.device)
    return index < frames.to(features.device).unsqueeze(1)
