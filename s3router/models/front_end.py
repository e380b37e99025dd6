"""The conv front end, made independent of padding and of batch-mates.

Two things leak from the padding in the usual way of running these models:
input normalisation over the padded length, and the base models' GroupNorm,
whose statistics run over all frames of a row. Both are computed here over
valid positions only, so that a clip gives the same features in any batch.
Without padding the result is that of the plain model.
"""

import torch
from torch import Tensor, nn

from s3router.models.lengths import frames_of, valid_positions

# As in transformers' Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm.
NORMALIZE_EPSILON = 1e-7


def normalize_waveforms(wavs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Give each clip zero mean and unit variance over its valid samples.

    Arguments
    ---------
    wavs : torch.Tensor, (B, S) float32
        Waveforms, padded at the end with anything.
    lengths : torch.Tensor, (B,) int64, optional
        Valid samples of each row; all of them if left out.

    Returns
    -------
    torch.Tensor, (B, S) float32
        Normalised waveforms, exactly 0 in the padding.

    Example
    -------
    >>> wav = torch.tensor([[1.0, 3.0, 9.0]])
    >>> normalize_waveforms(wav, torch.tensor([2])).round()
    tensor([[-1.,  1.,  0.]])
    """
    wavs = wavs.float()
    if lengths is None:
        mean = wavs.mean(dim=1, keepdim=True)
        centred = wavs - mean
        variance = centred.square().mean(dim=1, keepdim=True)
        return centred * torch.rsqrt(variance + NORMALIZE_EPSILON)
    valid = valid_positions(lengths, wavs.shape[1])
    count = lengths[:, None].clamp(min=1)
    mean = wavs.masked_fill(~valid, 0.0).sum(dim=1, keepdim=True) / count
    centred = (wavs - mean).masked_fill(~valid, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred * torch.rsqrt(variance + NORMALIZE_EPSILON)


def group_norm_of_clips(
    norm: nn.GroupNorm, hidden: Tensor, frames: Tensor
) -> Tensor:
    """Apply a GroupNorm to each clip by itself, without its padding.

    A loop over the rows, on purpose: it is the same kernel as for a clip
    alone, so the result is too, and it needs no masked copies of what is the
    largest activation of the whole model.

    Arguments
    ---------
    norm : torch.nn.GroupNorm
        Of the first conv layer of a base model.
    hidden : torch.Tensor, (B, C, T)
        Output of the first conv.
    frames : torch.Tensor, (B,) int64
        Valid frames of each row.

    Returns
    -------
    torch.Tensor, (B, C, T) float32
        Normalised; 0 in the padding.
    """
    if torch.compiler.is_compiling():
        return _group_norm_by_mask(norm, hidden, frames)
    counts = frames.tolist()
    if min(counts) == hidden.shape[2]:
        return norm(hidden)
    # float32 also under autocast, as torch has it for group_norm.
    normed = torch.zeros_like(hidden, dtype=torch.float32)
    for row, count in enumerate(counts):
        normed[row, :, :count] = norm(hidden[row : row + 1, :, :count])[0]
    return normed


def _group_norm_by_mask(
    norm: nn.GroupNorm, hidden: Tensor, frames: Tensor
) -> Tensor:
    """The same without a step that depends on values, for graphs."""
    valid = valid_positions(frames, hidden.shape[2])[:, None, None, :]
    groups = hidden.unflatten(1, (norm.num_groups, -1))
    count = frames[:, None, None, None].clamp(min=1) * groups.shape[2]
    mean = groups.masked_fill(~valid, 0.0).sum((2, 3), keepdim=True) / count
    centred = (groups - mean).masked_fill(~valid, 0.0)
    variance = centred.square().sum((2, 3), keepdim=True) / count
    normed = (centred * torch.rsqrt(variance + norm.eps)).flatten(1, 2)
    return normed * norm.weight[:, None] + norm.bias[:, None]


def run_conv_layers(
    feature_extractor: nn.Module, wavs: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Run the conv front end of any family.

    Arguments
    ---------
    feature_extractor : torch.nn.Module
        Of the Hugging Face model: `conv_layers`, each with `conv`,
        `activation` and perhaps `layer_norm`.
    wavs : torch.Tensor, (B, S) float32
        Waveforms, already normalised where the model wants it.
    lengths : torch.Tensor, (B,) int64, optional
        Valid samples of each row. Left out: all are valid, and the plain
        modules run without a data-dependent step (ONNX export needs this).

    Returns
    -------
    features : torch.Tensor, (B, T, C)
        Before the projection. The padding holds numbers of no meaning.
    frames : torch.Tensor, (B,) int64, or None
        Valid frames of each row; None if `lengths` was left out.
    """
    hidden = wavs[:, None, :]
    for layer in feature_extractor.conv_layers:
        if lengths is None:
            hidden = layer(hidden)
            continue
        conv, norm = layer.conv, getattr(layer, "layer_norm", None)
        lengths = frames_of(lengths, conv.kernel_size, conv.stride)
        if isinstance(norm, nn.GroupNorm):
            hidden = group_norm_of_clips(norm, conv(hidden), lengths)
            hidden = layer.activation(hidden)
        else:
            hidden = layer(hidden)
    return hidden.transpose(1, 2), lengths
