"""States of every layer of a frozen encoder: whole, or their mean over time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from encoder_batches import fill
from encoder_data import Clip
from encoder_features import Features
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from s3router.models.ssl_encoder import SSLEncoder

#: States of so many layers are held at a time as fit into this.
MEGABYTES = 1500.0
_BATCH_SECONDS = 30.0

Set = tuple[Features, Sequence[Clip]]


def last_layer(encoder: SSLEncoder) -> int:
    """Return the number of the last layer; 0 is the first block's input."""
    return encoder.num_layers


def frame_states(
    encoder: SSLEncoder, sets: Sequence[Set], layers: Sequence[int] | None
) -> Iterator[tuple[int, list[list[Tensor]]]]:
    """Yield each layer with its states of all clips.

    Arguments
    ---------
    encoder : SSLEncoder
        The encoder.
    sets : sequence of (Features, clips)
        What to encode.
    layers : sequence of int, optional
        Which layers; None: all.

    Yields
    ------
    int
        The layer.
    list of list of torch.Tensor
        For each set one (time, width) float16 for each clip, in its order.
    """
    if layers is None:
        layers = range(last_layer(encoder) + 1)
    frames = sum(len(f.get(clip.id)) for f, clips in sets for clip in clips)
    megabytes = 2e-6 * frames * encoder.hidden_size
    at_once = max(1, int(MEGABYTES / megabytes))
    for first in range(0, len(layers), at_once):
        chosen = layers[first : first + at_once]
        kept = {
            layer: [[None] * len(clips) for _, clips in sets]
            for layer in chosen
        }
        for number, (features, clips) in enumerate(sets):
            for places, states, lengths in _encode(encoder, features, clips):
                for layer in chosen:
                    rows = states[layer].half().cpu()
                    for row, place in enumerate(places):
                        value = rows[row, : lengths[row]].clone()
                        kept[layer][number][place] = value
        for layer in chosen:
            yield layer, kept.pop(layer)


def pooled_states(
    encoder: SSLEncoder, features: Features, clips: Sequence[Clip]
) -> np.ndarray:
    """Return the mean over time, (layers + 1, clips, width) float32."""
    means = np.zeros(
        (last_layer(encoder) + 1, len(clips), encoder.hidden_size), np.float32
    )
    for places, states, lengths in _encode(encoder, features, clips):
        counts = torch.tensor(lengths)[:, None]
        for layer, state in enumerate(states):
            # Padding is zero.
            means[layer, places] = state.sum(1).cpu() / counts
    return means


@torch.no_grad()
def _encode(
    encoder: SSLEncoder, features: Features, clips: Sequence[Clip]
) -> Iterator[tuple[list[int], list[Tensor], list[int]]]:
    """Yield places, states of all layers and frames, batch by batch."""
    device = encoder.mask_embedding.device
    seconds = [clip.seconds for clip in clips]
    order = sorted(range(len(clips)), key=lambda i: seconds[i])
    for places in fill(order, seconds, _BATCH_SECONDS):
        values = [features.of(clips[i].id).float() for i in places]
        lengths = [len(value) for value in values]
        padded = pad_sequence(values, batch_first=True).to(device)
        states = encoder.hidden_states(padded, torch.tensor(lengths))
        yield places, states, lengths
