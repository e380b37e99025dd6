"""Weights with many zeros, stored without them: layout "standalone".

A graph that lies alone has all its weights. Where many are zero, what is not
is stored, in one of three ways, and standard operators of static shapes put it
back into place, which onnxruntime carries out once, when it loads the graph:

    gaps    a byte for each value: how far it lies behind the one before it
            gaps -> Cast int32 -> CumSum -> ScatterElements in zeros -> Reshape
    bits    a bit for each place: whether it has a value
            bits -> Cast int32 -> Gather in a table of 256 x 8 bools -> Reshape
            -> NonZero -> Reshape -> ScatterElements in zeros -> Reshape
    sparse  ONNX's own sparse tensor, with a place of int64 for each value,
            which only pays where next to nothing is left; as the value of a
            Constant, since to onnx's inference of shapes a
            `sparse_initializer` is no matrix

Each tensor gets what is smallest for it. "Zero" is by bits: -0.0 is a value.
"""

import math
from typing import Any

import numpy as np

from s3router.errors import one_of
from s3router.export.decoders import (
    BITS,
    DENSE,
    GAPS,
    SPARSE,
    Decoders,
    nonzero_places,
    places_between,
)

AUTO = "auto"
ENCODINGS = (AUTO, DENSE, GAPS, BITS, SPARSE)
#: Bytes that the nodes of a decoder take in a file, roughly: what saves less
#: is left alone.
NODES = 1024


def encode(
    model: Any, encoding: str = AUTO
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Store the weights of a graph in fewer bytes, where that is possible.

    Arguments
    ---------
    model : onnx_ir.Model
        Of `build_graph`; changed in place. The results of the decoders bear
        the names that the weights had.
    encoding : str
        "auto": the smallest for each tensor. "gaps", "bits" or "sparse": this
        one, wherever it is smaller than all weights. "dense": none.

    Returns
    -------
    tuple of dict and dict
        What to tell: "name", the encoding of the most bytes; "tensors", how
        many have each; "bytes" of all weights in each encoding, a tensor
        counted dense where that is smaller; "stored", bytes as they are
        stored. Then the `onnx.SparseTensorProto` by name, which `save_graph`
        wants.

    Raises
    ------
    SettingError
        If the encoding is unknown.
    """
    one_of(encoding, ENCODINGS, "encoding")
    chosen, totals = {}, dict.fromkeys((DENSE, GAPS, BITS, SPARSE), 0)
    decoders = Decoders(model.graph)
    for value in list(model.graph.initializers.values()):
        array = value.const_value.numpy()
        size = sizes(array)
        for kind in totals:
            totals[kind] += min(size[kind], size[DENSE])
        kind = smallest(size, encoding)
        count = chosen.setdefault(kind, [0, 0])
        count[0] += 1
        count[1] += size[kind]
        decoders.replace(value, array, kind)
    decoders.insert()
    summary = {
        "name": max(chosen, key=lambda kind: chosen[kind][1]),
        "tensors": {kind: count for kind, (count, _) in chosen.items()},
        "bytes": totals,
        "stored": sum(size for _, size in chosen.values()),
    }
    return summary, decoders.sparse


def smallest(size: dict[str, int], encoding: str = AUTO) -> str:
    """Return the encoding that a tensor gets.

    Arguments
    ---------
    size : dict
        Of `sizes`.
    encoding : str
        As for `encode`.

    Returns
    -------
    str
        Of the keys of `size`; "dense" unless the nodes of a decoder are paid
        for.

    Example
    -------
    >>> smallest({"dense": 9000, "gaps": 5000, "bits": 4000, "sparse": 8100})
    'bits'
    """
    kinds = size if encoding == AUTO else (encoding,)
    best = min(kinds, key=lambda kind: size[kind])
    return best if size[best] + NODES < size[DENSE] else DENSE


def sizes(array: np.ndarray) -> dict[str, int]:
    """Return the bytes that a tensor takes in each encoding.

    Arguments
    ---------
    array : numpy.ndarray
        Any dtype and shape.

    Returns
    -------
    dict
        Encoding to bytes. What is not floating point, or empty, stays as it
        is: the others are infinite.

    Example
    -------
    >>> sizes(np.eye(16, dtype=np.float32))
    {'dense': 1024, 'gaps': 80, 'bits': 96, 'sparse': 192}
    """
    width = array.dtype.itemsize
    if array.dtype.kind != "f" or not array.size:
        none = dict.fromkeys((GAPS, BITS, SPARSE), math.inf)
        return {DENSE: array.nbytes, **none}
    places = nonzero_places(array)
    steps = len(places) + int(places_between(places).sum())
    return {
        DENSE: array.nbytes,
        GAPS: steps * (1 + width),
        BITS: len(places) * width + -(-array.size // 8),
        SPARSE: len(places) * (np.dtype(np.int64).itemsize + width),
    }


def describe_encoding(summary: dict[str, Any]) -> str:
    """Return a line for people of what `encode` did.

    Arguments
    ---------
    summary : dict
        Of `encode`.

    Returns
    -------
    str
        The line.

    Example
    -------
    >>> sizes = {"dense": 4e8, "gaps": 1.2e8, "bits": 1.1e8, "sparse": 3e8}
    >>> kinds = {"dense": 9, "bits": 72}
    >>> told = {"name": "bits", "tensors": kinds, "bytes": sizes}
    >>> describe_encoding({**told, "stored": 1.1e8})
    'weights as 9 dense, 72 bits: 110.0 MB (dense 400.0, gaps 120.0, bits \
110.0, sparse 300.0)'
    """
    kinds = ", ".join(f"{n} {kind}" for kind, n in summary["tensors"].items())
    others = ", ".join(
        f"{kind} {size / 1e6:.1f}" for kind, size in summary["bytes"].items()
    )
    return f"weights as {kinds}: {summary['stored'] / 1e6:.1f} MB ({others})"
