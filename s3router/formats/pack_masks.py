"""Which masks a bundle has, and in how few bytes each of them can be sent.

For each layer the masks of all languages are looked at together: each against
the mask that magnitude alone would give, against what most languages agree on
(which then has to be sent too), and for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s3router.formats.bundle import Bundle
from s3router.formats.graph_bytes import (
    FLOAT16,
    FLOAT32,
    INT8,
    MASK_BITS,
    SCALE,
    UINT8,
    TensorSpan,
    tensors,
)
from s3router.formats.mask_code import (
    Stream,
    entropy_bytes,
    magnitude_mask,
    majority,
    write_mask,
)
from s3router.formats.pack_file import MOST_WEIGHTS, PackWriter

NONE, MAGNITUDE, CONSENSUS = "none", "magnitude", "consensus"
_SCALES = "<f4"
_LEVELS = "|i1"
DTYPES = {FLOAT32: _SCALES, FLOAT16: "<f2", INT8: _LEVELS}


@dataclass
class Layer:
    """What the masks of one layer have in common.

    Arguments
    ---------
    size : int
        Number of weights.
    shape : tuple of int
        Of the weight in the graph; empty where it was not found.
    weight : dict, optional
        "file", "offset" and "dtype" of the weights in the bundle; of bytes
        also "scales", with "file", "offset" and "count".
    spans : dict
        By graph: where its bits lie.
    """

    size: int
    shape: tuple[int, ...]
    weight: dict[str, Any] | None
    spans: dict[str, TensorSpan] = field(default_factory=dict)

    @property
    def key(self) -> tuple:
        """Return what has to be equal for masks to be comparable."""
        return self.size, self.shape, repr(self.weight)


@dataclass
class Coded:
    """A mask as it is sent.

    Arguments
    ---------
    reference : str
        "none", "magnitude" or "consensus".
    kept : int
        Weights that it keeps.
    streams : list of Stream
        Of `write_mask`.
    bound : float
        Bytes that its density asks for.
    """

    reference: str
    kept: int
    streams: list[Stream]
    bound: float

    @property
    def bytes(self) -> int:
        """Return how many bytes are sent."""
        return sum(len(stream.payload) for stream in self.streams)


def find_masks(bundle: Bundle) -> dict[str, Layer]:
    """Return the masked layers, with the places of their bits in graphs.

    Arguments
    ---------
    bundle : Bundle
        Loaded, and its files verified.

    Returns
    -------
    dict
        Name of the layer to `Layer`; of graphs without bits, none. Where
        graphs have the layer in several sizes, each of them is one, and all
        but the first have a number in their name.
    """
    layers: dict[str, dict[tuple, Layer]] = {}
    for name in sorted({e.model for e in bundle.languages.values()}):
        content = bundle.path(name).read_bytes()
        found = {tensor.name: tensor for tensor in tensors(content)}
        for tensor in found.values():
            if not tensor.name.endswith(MASK_BITS) or tensor.dtype != UINT8:
                continue
            layer = tensor.name.removesuffix(MASK_BITS)
            seen = _layer(bundle, tensor, layer, found)
            mask = _bits(content, tensor, seen.size)
            back = np.packbits(mask, bitorder="little").tobytes()
            # What is not as expected goes as it is, with the graph.
            if (
                seen.size <= MOST_WEIGHTS
                and back == (content[tensor.start : tensor.stop])
            ):
                kinds = layers.setdefault(layer, {})
                kinds.setdefault(seen.key, seen).spans[name] = tensor
    return {
        f"{layer} ({number})" if number else layer: kind
        for layer, kinds in layers.items()
        for number, kind in enumerate(kinds.values())
    }


def _layer(
    bundle: Bundle,
    bits: TensorSpan,
    name: str,
    found: Mapping[str, TensorSpan],
) -> Layer:
    """Return a layer, with its weights if they are where they can be read."""
    size, weight = 8 * (bits.stop - bits.start), found.get(f"{name}.weight")
    if weight is None or -(-int(np.prod(weight.shape)) // 8) * 8 != size:
        return Layer(size, (), None)
    size, place = int(np.prod(weight.shape)), _place(bundle, weight)
    if place is None or weight.dtype not in DTYPES:
        return Layer(size, weight.shape, None)
    place["dtype"] = DTYPES[weight.dtype]
    if weight.dtype == INT8:
        # Bytes of different channels only compare by their scales, one for
        # each column.
        scale = found.get(f"{name}.weight{SCALE}")
        where = scale and _place(bundle, scale)
        if not where or scale.shape != weight.shape[-1:]:
            return Layer(size, weight.shape, None)
        place["scales"] = {**where, "count": scale.shape[0]}
    return Layer(size, weight.shape, place)


def _place(bundle: Bundle, tensor: TensorSpan) -> dict[str, Any] | None:
    """Return where a tensor lies in a file of weights; None if in none."""
    name = tensor.external.get("location")
    if name not in bundle.files:
        return None
    return {"file": name, "offset": int(tensor.external.get("offset", 0))}


def _bits(content: bytes, tensor: TensorSpan, size: int) -> np.ndarray:
    """Return the mask in a graph, flat."""
    data = np.frombuffer(content, np.uint8)[tensor.start : tensor.stop]
    return np.unpackbits(data, count=size, bitorder="little").view(np.bool_)


def read_weight(folder: Path, weight: Mapping[str, Any], size: int) -> Any:
    """Return the sizes of the weights of a layer in the order of its mask.

    Arguments
    ---------
    folder : pathlib.Path
        Of the bundle.
    weight : mapping
        As of `Layer`.
    size : int
        How many.

    Returns
    -------
    numpy.ndarray
        (size,) float32 or float16, fewer if the file ends. The sign means
        nothing.
    """
    path, offset = folder / weight["file"], weight["offset"]
    values = np.fromfile(path, weight["dtype"], size, offset=offset)
    if weight["dtype"] != _LEVELS:
        return values
    scales = weight["scales"]
    path, count = folder / scales["file"], scales["count"]
    steps = np.fromfile(path, _SCALES, count, offset=scales["offset"])
    if len(values) < size or len(steps) < count:
        return np.empty(0, np.float32)
    # One product, rounded as IEEE 754 says: the same on every machine.
    sizes = values.reshape(-1, count).astype(np.float32) * steps
    return sizes.reshape(-1)


def code_masks(
    bundle: Bundle, layers: Mapping[str, Layer], writer: PackWriter
) -> dict[str, dict[str | None, Coded]]:
    """Return the masks as they are sent.

    Arguments
    ---------
    bundle : Bundle
        Loaded, and its files verified.
    layers : mapping
        Of `find_masks`.
    writer : PackWriter
        Compresses.

    Returns
    -------
    dict
        By layer, then by graph; None stands for the consensus, if it is sent.
    """
    contents = {
        name: bundle.path(name).read_bytes()
        for name in sorted({n for e in layers.values() for n in e.spans})
    }
    coded = {}
    for name, layer in layers.items():
        masks = {
            graph: _bits(contents[graph], span, layer.size)
            for graph, span in layer.spans.items()
        }
        weight = layer.weight and read_weight(
            bundle.folder, layer.weight, layer.size
        )
        if weight is not None and len(weight) < layer.size:
            weight = None
        coded[name] = code_layer(masks, weight, writer)
    return coded


def code_layer(
    masks: Mapping[str, np.ndarray],
    weight: np.ndarray | None,
    writer: PackWriter,
) -> dict[str | None, Coded]:
    """Return the masks of one layer in the fewest bytes altogether.

    Arguments
    ---------
    masks : mapping
        By graph (n,) bool.
    weight : numpy.ndarray, optional
        (n,) float16 or float32, where both ends have them.
    writer : PackWriter
        Compresses.

    Returns
    -------
    dict
        By graph; None stands for the consensus, if it is sent.
    """

    def by_magnitude(mask: np.ndarray) -> dict[str, np.ndarray]:
        if weight is None:
            return {}
        kept = int(np.count_nonzero(mask))
        return {MAGNITUDE: magnitude_mask(weight, kept)}

    alone = {
        graph: _best(mask, by_magnitude(mask), writer)
        for graph, mask in masks.items()
    }
    if len(masks) < 2:
        return alone
    middle = majority(list(masks.values()))
    together = {None: _best(middle, by_magnitude(middle), writer)}
    for graph, mask in masks.items():
        # Only where the estimate says so is it worth the time.
        if entropy_bytes(mask, middle) < alone[graph].bytes:
            best = _against(mask, CONSENSUS, middle, writer)
            together[graph] = min(best, alone[graph], key=lambda c: c.bytes)
        else:
            together[graph] = alone[graph]
    cost = [sum(c.bytes for c in each.values()) for each in (alone, together)]
    return together if cost[1] < cost[0] else alone


def _best(
    mask: np.ndarray, references: Mapping[str, np.ndarray], writer: PackWriter
) -> Coded:
    """Return a mask for itself, or against a reference that makes it less."""
    best = _against(mask, NONE, None, writer)
    for name, reference in references.items():
        if entropy_bytes(mask, reference) < best.bytes:
            other = _against(mask, name, reference, writer)
            best = min(best, other, key=lambda coded: coded.bytes)
    return best


def _against(
    mask: np.ndarray,
    name: str,
    reference: np.ndarray | None,
    writer: PackWriter,
) -> Coded:
    kept = int(np.count_nonzero(mask))
    streams = write_mask(mask, reference, writer.squeeze)
    return Coded(name, kept, streams, entropy_bytes(mask))
