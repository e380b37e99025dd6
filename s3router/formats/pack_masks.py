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
    MASK_BITS,
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
FLOATS = {FLOAT32: "<f4", FLOAT16: "<f2"}


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
        "file", "offset" and "dtype" of the weights in the bundle.
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
        Name of the layer to `Layer`; of graphs without bits, none.
    """
    layers: dict[str, Layer] = {}
    for name in sorted({e.model for e in bundle.languages.values()}):
        content = bundle.path(name).read_bytes()
        found = {tensor.name: tensor for tensor in tensors(content)}
        for tensor in found.values():
            if not tensor.name.endswith(MASK_BITS) or tensor.dtype != UINT8:
                continue
            layer = tensor.name.removesuffix(MASK_BITS)
            seen = _layer(bundle, tensor, found.get(f"{layer}.weight"))
            first = layers.setdefault(layer, seen)
            mask = _bits(content, tensor, seen.size)
            back = np.packbits(mask, bitorder="little").tobytes()
            # What is not as expected goes as it is, with the graph.
            if first.key == seen.key and seen.size <= MOST_WEIGHTS:
                if back == content[tensor.start : tensor.stop]:
                    first.spans[name] = tensor
    return {name: layer for name, layer in layers.items() if layer.spans}


def _layer(
    bundle: Bundle, bits: TensorSpan, weight: TensorSpan | None
) -> Layer:
    """Return a layer, with its weights if they are where they can be read."""
    size = 8 * (bits.stop - bits.start)
    if weight is None or -(-int(np.prod(weight.shape)) // 8) * 8 != size:
        return Layer(size, (), None)
    size, external = int(np.prod(weight.shape)), weight.external
    if weight.dtype not in FLOATS or external.get("location") not in (
        bundle.files
    ):
        return Layer(size, weight.shape, None)
    place = {
        "file": external["location"],
        "offset": int(external.get("offset", 0)),
        "dtype": FLOATS[weight.dtype],
    }
    return Layer(size, weight.shape, place)


def _bits(content: bytes, tensor: TensorSpan, size: int) -> np.ndarray:
    """Return the mask in a graph, flat."""
    data = np.frombuffer(content, np.uint8)[tensor.start : tensor.stop]
    return np.unpackbits(data, count=size, bitorder="little").view(np.bool_)


def read_weight(folder: Path, weight: Mapping[str, Any], size: int) -> Any:
    """Return the weights of a layer in the order of its mask.

    Arguments
    ---------
    folder : pathlib.Path
        Of the bundle.
    weight : mapping
        Their "file", "offset" and "dtype".
    size : int
        How many.

    Returns
    -------
    numpy.ndarray
        (size,), fewer if the file ends.
    """
    path, offset = folder / weight["file"], weight["offset"]
    return np.fromfile(path, weight["dtype"], size, offset=offset)


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
