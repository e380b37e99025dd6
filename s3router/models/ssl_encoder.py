"""The encoder that everything else sees: frozen weights, honest lengths.

What it promises: float32 weights, dropout only where asked and only while
something in the encoder trains, and an output for each clip that does not
depend on padding or on the other clips of the batch. Built by
`s3router.models.encoder.load_encoder`.
"""

import numpy as np
import torch
from torch import Tensor, nn

from s3router.formats.fingerprint import fingerprint
from s3router.masks.targets import find_blocks
from s3router.models import front_end as conv_front_end
from s3router.models.build import MASK_EMBEDDING
from s3router.models.lengths import (
    check_lengths,
    frames_of,
    shortest_clip,
    valid_positions,
)
from s3router.models.spec_augment import SpanMasking
from s3router.models.transformer import (
    run_feature_projection,
    run_transformer,
    zero_padding,
)


class SSLEncoder(nn.Module):
    """A speech encoder with honest lengths.

    Attributes: `model` (the Hugging Face base model; masks, targets and
    weight names are relative to it), `name`, `family`, `sample_rate` (16000),
    `hidden_size`, `num_layers`, `num_parameters`, `normalize_input`,
    `min_samples`.

    Arguments
    ---------
    model : torch.nn.Module
        A Hugging Face base model of a known family, from `build_model`.
    name : str
        What the user calls it; written into subnetworks.
    normalize_input : bool
        Whether each clip is given zero mean and unit variance.
    freeze_front_end : bool
        Whether the conv front end takes no gradient.
    """

    sample_rate = 16000

    def __init__(
        self,
        model: nn.Module,
        name: str,
        normalize_input: bool,
        freeze_front_end: bool = True,
    ):
        super().__init__()
        self.model = model
        self.name = name
        self.normalize_input = normalize_input
        config = model.config
        self.family = config.model_type
        self.hidden_size = config.hidden_size
        self.num_layers = config.num_hidden_layers
        self._kernels = tuple(config.conv_kernel)
        self._strides = tuple(config.conv_stride)
        self.min_samples = shortest_clip(self._kernels, self._strides)
        # It never gets a gradient where nothing is masked, which stops DDP.
        getattr(model, MASK_EMBEDDING).requires_grad_(False)
        if freeze_front_end:
            model.feature_extractor.requires_grad_(False)
        self.eval()

    @property
    def num_parameters(self) -> int:
        """Number of weights of the encoder, scores of masks not counted."""
        return sum(
            parameter.numel()
            for name, parameter in self.model.named_parameters()
            if not name.endswith(".scores")
        )

    @property
    def mask_embedding(self) -> Tensor:
        """The vector (D,) that a masked frame becomes."""
        return getattr(self.model, MASK_EMBEDDING)

    def freeze(self) -> "SSLEncoder":
        """Freeze every weight, and with them all randomness.

        For a head on a fixed encoder. Not needed before mask tuning (the
        router freezes the weights), and not allowed after: it would freeze
        the scores too.

        Returns
        -------
        SSLEncoder
            Itself.
        """
        self.model.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "SSLEncoder":
        """Switch training mode, where there is something to train.

        A frozen encoder stays deterministic: `Brain.fit` calls
        `modules.train()`, which would otherwise switch its dropout on. As
        soon as any weight or score in it takes gradients, the dropouts that
        were asked for act in the whole of it. Normalisation statistics that
        are frozen are never updated.

        Arguments
        ---------
        mode : bool
            True for training.

        Returns
        -------
        SSLEncoder
            Itself.
        """
        super().train(mode)
        self.model.train(mode and self._is_trained())
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                learns = any(p.requires_grad for p in module.parameters())
                module.train(module.training and learns)
        return self

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Return the number of frames of each clip.

        Arguments
        ---------
        samples : torch.Tensor, int64
            Lengths in samples at 16 kHz.

        Returns
        -------
        torch.Tensor, int64
            Frames (20 ms steps for all released encoders), at least 0.
        """
        return frames_of(samples, self._kernels, self._strides)

    def front_end(
        self, wavs: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run input normalisation and the convs.

        Arguments
        ---------
        wavs : torch.Tensor, (B, S) float32
            Waveforms at 16 kHz as read from file, padded at the end.
        lengths : torch.Tensor, (B,) int64, optional
            Valid samples of each; S if left out.

        Returns
        -------
        features : torch.Tensor, (B, T, C)
            Conv output before the projection, 0 in the padding. It carries
            no graph if the front end is frozen.
        frames : torch.Tensor, (B,) int64
            Valid frames of each clip.

        Raises
        ------
        DataError
            If a clip is too short for one frame.
        """
        if lengths is None:
            lengths = torch.full(
                (wavs.shape[0],), wavs.shape[1], device=wavs.device
            )
        lengths = lengths.to(wavs.device)
        check_lengths(lengths, wavs.shape[1], self.min_samples)
        extractor = self.model.feature_extractor
        learns = any(p.requires_grad for p in extractor.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            wavs = wavs.float()
            if self.normalize_input:
                wavs = conv_front_end.normalize_waveforms(wavs, lengths)
            else:
                inside = valid_positions(lengths, wavs.shape[1])
                wavs = wavs.masked_fill(~inside, 0.0)
            features, frames = conv_front_end.run_conv_layers(
                extractor, wavs, lengths
            )
            valid = valid_positions(frames, features.shape[1])
            return zero_padding(features, valid), frames

    def contextualize(
        self,
        features: Tensor,
        frames: Tensor,
        augment: SpanMasking | None = None,
    ) -> Tensor:
        """Run projection, masking of spans, and the transformer.

        Arguments
        ---------
        features : torch.Tensor, (B, T, C)
            From `front_end`, or from a cache of it.
        frames : torch.Tensor, (B,) int64
            Valid frames of each clip.
        augment : SpanMasking, optional
            Applied in training mode only.

        Returns
        -------
        torch.Tensor, (B, T, D)
            Hidden states of the last layer, 0 in the padding.
        """
        valid = self._valid(features, frames)
        hidden = self._project(features, frames, augment)
        hidden = run_transformer(self.model.encoder, hidden, valid)
        return zero_padding(hidden, valid)

    def hidden_states(
        self,
        features: Tensor,
        frames: Tensor,
        augment: SpanMasking | None = None,
    ) -> list[Tensor]:
        """Return the states of all layers.

        Arguments
        ---------
        features, frames, augment
            As for `contextualize`.

        Returns
        -------
        list of torch.Tensor, (B, T, D)
            Input of the first block, then the output of each, 0 in the
            padding. The last is what `contextualize` returns: with the final
            layer norm, where the encoder has one after its blocks.
        """
        valid = self._valid(features, frames)
        hidden = self._project(features, frames, augment)
        states: list[Tensor] = []
        last = run_transformer(self.model.encoder, hidden, valid, states)
        return [zero_padding(state, valid) for state in [*states[:-1], last]]

    def forward(
        self,
        wavs: Tensor,
        wav_lens: Tensor | None = None,
        augment: SpanMasking | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode a batch as speechbrain pads it.

        Arguments
        ---------
        wavs : torch.Tensor, (B, S) float32
            Waveforms at 16 kHz, padded at the end.
        wav_lens : torch.Tensor, (B,) float32, optional
            Relative lengths in (0, 1]; 1 if left out.
        augment : SpanMasking, optional
            Applied in training mode only.

        Returns
        -------
        hidden : torch.Tensor, (B, T, D)
            Last hidden states, 0 in the padding.
        frames : torch.Tensor, (B,) int64
            Valid frames of each clip.
        """
        lengths = None
        if wav_lens is not None:
            lengths = (wav_lens * wavs.shape[1]).round().long()
        features, frames = self.front_end(wavs, lengths)
        return self.contextualize(features, frames, augment), frames

    def forward_unpadded(self, wavs: Tensor) -> Tensor:
        """Encode clips of one length; the path that is exported to ONNX.

        No attention mask, no normalisation (the runtime does it), no step
        that depends on values.

        Arguments
        ---------
        wavs : torch.Tensor, (B, S) float32
            Waveforms at 16 kHz without padding, normalised already where
            `normalize_input` says so.

        Returns
        -------
        torch.Tensor, (B, T, D)
            Last hidden states: those of `forward` on the same clips.
        """
        model = self.model
        features, _ = conv_front_end.run_conv_layers(
            model.feature_extractor, wavs
        )
        hidden = run_feature_projection(model.feature_projection, features)
        return run_transformer(model.encoder, hidden)

    def maskable_weights(self) -> dict[str, np.ndarray]:
        """Return the weights that masks may act on, unmasked.

        Returns
        -------
        dict of str to numpy.ndarray, float32
            The weight of every linear layer in the transformer blocks, by
            its module's name relative to `model`, as masks are named.
        """
        weights = {}
        for block in find_blocks(self.model):
            owners = [*block.attention.values(), *block.feed_forward.values()]
            for owner in owners:
                module = self.model.get_submodule(owner)
                weights[owner] = (
                    original_weight(module).detach().float().cpu().numpy()
                )
        return weights

    def fingerprint(self) -> str:
        """Return the hash that ties a subnetwork to this encoder.

        Returns
        -------
        str
            "sha256:..." over `maskable_weights`, the same with masks in
            place and without.
        """
        return fingerprint(self.maskable_weights())

    def extra_repr(self) -> str:
        """Return name, family and size, for printing."""
        return (
            f"{self.name!r}, {self.family}, {self.num_layers} layers of "
            f"{self.hidden_size}, normalize_input={self.normalize_input}"
        )

    def _project(
        self, features: Tensor, frames: Tensor, augment: SpanMasking | None
    ) -> Tensor:
        """Project to the transformer's width, and mask while training."""
        hidden = run_feature_projection(self.model.feature_projection, features)
        if augment is not None and self.training:
            frames = frames.to(features.device)
            hidden = augment(hidden, frames, self.mask_embedding)
        return hidden

    def _valid(self, features: Tensor, frames: Tensor) -> Tensor | None:
        """Return the valid frames (B, T) bool, or None if all of them are.

        Without a mask, attention can take the fastest kernels.
        """
        frames = frames.to(features.device)
        time = features.shape[1]
        if not torch.compiler.is_compiling() and bool((frames >= time).all()):
            return None
        return valid_positions(frames, time)

    def _is_trained(self) -> bool:
        """Return whether anything in the encoder takes gradients."""
        return any(p.requires_grad for p in self.model.parameters())


def original_weight(module: nn.Module) -> Tensor:
    """Return a module's weight as it is without a mask.

    Arguments
    ---------
    module : torch.nn.Module
        A linear layer, with a parametrization on `weight` or without.

    Returns
    -------
    torch.Tensor
        The stored weight.
    """
    if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
        return module.parametrizations.weight.original
    return module.weight
