"""From an encoder and a subnetwork to one plain model, ready for export.

Tuned weights are put in, masks are multiplied in, parametrizations removed.
What comes out has no masks any more, only zeros.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from s3router.errors import MismatchError
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.apply import apply_masks, put_weights
from s3router.models.bottleneck import attach_bottlenecks
from s3router.models.encoder import SSLEncoder
from s3router.models.heads import HEADS, ClassificationHead, CTCHead
from s3router.runtime.session import INPUT, OUTPUT


class FoldedModel(nn.Module):
    """An encoder with a subnetwork folded in, and its head.

    Arguments
    ---------
    encoder : SSLEncoder
        Folded.
    head : CTCHead
        The subnetwork's head.
    """

    #: What the graph calls the arguments of `forward` and its result.
    inputs: tuple[str, ...] = (INPUT,)
    output = OUTPUT

    def __init__(self, encoder: SSLEncoder, head: CTCHead):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.eval()

    def forward(self, input_values: Tensor) -> Tensor:
        """Return the logits of audio without padding, as the graph does.

        Arguments
        ---------
        input_values : torch.Tensor
            (N, samples) float32, already normalised where the encoder wants
            it.

        Returns
        -------
        torch.Tensor
            (N, frames, tokens) float32; (N, classes) of a task that
            classifies.
        """
        return self.head(self.encoder.forward_unpadded(input_values))

    @torch.no_grad()
    def padded(self, wavs: list[Tensor]) -> list[Tensor]:
        """Return the logits of clips of any lengths, through one batch.

        The path of training and evaluation: the clips are padded, and the
        encoder normalises and masks them itself.

        Arguments
        ---------
        wavs : list of torch.Tensor
            (samples,) float32 each, not normalised.

        Returns
        -------
        list of torch.Tensor
            (frames, tokens) float32 each, without padding; (classes,) of a
            task that classifies.
        """
        lengths = torch.tensor([len(wav) for wav in wavs])
        batch = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        features, frames = self.encoder.front_end(batch, lengths)
        hidden = self.encoder.contextualize(features, frames)
        if isinstance(self.head, ClassificationHead):
            return list(self.head(hidden, frames))
        logits = self.head(hidden)
        return [row[:n] for row, n in zip(logits, frames.tolist(), strict=True)]


def fold(encoder: SSLEncoder, subnetwork: Subnetwork) -> FoldedModel:
    """Fold a subnetwork into an encoder, which is used up by it.

    Arguments
    ---------
    encoder : SSLEncoder
        Freshly loaded: its weights are changed in place.
    subnetwork : Subnetwork
        Made for this encoder.

    Returns
    -------
    FoldedModel
        In eval mode, float32, on the CPU.

    Raises
    ------
    MismatchError
        If the subnetwork was made for another encoder, or names weights that
        the encoder has not or has in another shape.
    """
    _check_fit(encoder, subnetwork)
    encoder.cpu().float().requires_grad_(False)
    put_subnetwork(encoder.model, subnetwork)
    model = _under_head(encoder, subnetwork, subnetwork.config["task"])
    _check_zeros(model, subnetwork.masks)
    return model


def plain_model(encoder: SSLEncoder, subnetwork: Subnetwork) -> FoldedModel:
    """Return an encoder without masks, under a subnetwork's head.

    Arguments
    ---------
    encoder : SSLEncoder
        Freshly loaded; used up.
    subnetwork : Subnetwork
        Made for this encoder; only its head is taken, as one of CTC.

    Returns
    -------
    FoldedModel
        In eval mode, float32, on the CPU.

    Raises
    ------
    MismatchError
        If the subnetwork was made for another encoder.
    """
    _check_fit(encoder, subnetwork)
    return _under_head(encoder, subnetwork, "ctc")


def _check_fit(encoder: SSLEncoder, subnetwork: Subnetwork) -> None:
    """Raise MismatchError if a subnetwork was made for another encoder."""
    subnetwork.check_encoder(encoder.fingerprint(), encoder.name)
    _check_normalize(encoder, subnetwork)
    width = subnetwork.head.get("weight", np.empty((0, 0))).shape[-1]
    if width != encoder.hidden_size:
        raise MismatchError(
            f"the subnetwork's head does not take the {encoder.hidden_size} "
            f"numbers a frame of {encoder.name}"
        )


def _under_head(
    encoder: SSLEncoder, subnetwork: Subnetwork, task: str
) -> FoldedModel:
    """Return encoder and head as one plain model."""
    encoder = encoder.cpu().float().requires_grad_(False)
    head = HEADS[task].from_numpy(subnetwork.head)
    model = FoldedModel(encoder, head.requires_grad_(False))
    _remove_parametrizations(model)
    return model


def put_subnetwork(model: nn.Module, subnetwork: Subnetwork) -> None:
    """Make a plain encoder what a subnetwork says, but for the head.

    Arguments
    ---------
    model : torch.nn.Module
        The Hugging Face model, freshly loaded; changed in place.
    subnetwork : Subnetwork
        Its adapters, tuned weights and masks.

    Raises
    ------
    MismatchError
        If it names weights that the encoder has not or has in another shape.
    """
    if "adapter_width" in subnetwork.config:
        attach_bottlenecks(model, subnetwork.config["adapter_width"])
    if subnetwork.weights:
        put_weights(model, subnetwork.weights)
    if subnetwork.masks:
        apply_masks(model, subnetwork.masks)


def _check_normalize(encoder: SSLEncoder, subnetwork: Subnetwork) -> None:
    """Raise MismatchError if the subnetwork heard audio otherwise."""
    trained = subnetwork.config.get("normalize", encoder.normalize_input)
    if bool(trained) != bool(encoder.normalize_input):
        raise MismatchError(
            f"the subnetwork was trained with normalize={bool(trained)}, but "
            f"{encoder.name} says {bool(encoder.normalize_input)}: is its "
            f"preprocessor_config.json the original one?"
        )


def _remove_parametrizations(model: nn.Module) -> None:
    """Make every weight plain, as the weight norm of the positional conv.

    Left in, the exporter would keep its parts and compute the weight in the
    graph.
    """
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)


@torch.no_grad()
def _check_zeros(model: FoldedModel, masks: Mapping[str, np.ndarray]) -> None:
    """Raise MismatchError if a masked-out weight is not plain zero."""
    for name, mask in masks.items():
        weight = model.encoder.model.get_submodule(name).weight
        if np.any(weight.detach().numpy()[~mask]):
            raise MismatchError(
                f"{name} still has weights that its mask removes"
            )
        # A negative weight times zero is -0.0: equal, but other bits.
        weight.add_(0.0)
