"""Gathers of rows and columns, put in front of a graph by `gathered`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s3router.export.cuts import Cuts
from s3router.export.graph import onnx_ir

#: Suffix of what a gather gives: the kept part of a weight.
KEPT = ".kept"


class Gathers:
    """The gathers of one graph; those of one cut share its indices.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Gets nodes before its first, and initialisers.
    cuts : Cuts
        What is kept.
    """

    def __init__(self, graph: Any, cuts: Cuts) -> None:
        self._ir, self._graph, self._cuts = onnx_ir(), graph, cuts
        self._first = graph[0]
        self._casts: dict[str, Any] = {}

    def take(self, value: Any, axes: Mapping[int, str], name: str) -> Any:
        """Gather what is kept of a value.

        Arguments
        ---------
        value : onnx_ir.Value
            Of static shape and known type.
        axes : mapping of int to str
            Axis to the name of its cut.
        name : str
            The result is called that, with `KEPT`.

        Returns
        -------
        onnx_ir.Value
            The smaller one; `value` itself where nothing is cut.
        """
        kept = value
        for axis, cut in axes.items():
            given, shape = kept, list(kept.shape)
            shape[axis] = len(self._cuts.indices[cut])
            inputs = [given, self._index(cut)]
            node = self._ir.node("Gather", inputs, {"axis": axis})
            kept = self._put(node, f"{name}{KEPT}.{axis}")
            kept.shape, kept.dtype = self._ir.Shape(shape), given.dtype
        if axes:
            kept.name = f"{name}{KEPT}"
        return kept

    def _index(self, cut: str) -> Any:
        """Return the indices of a cut, which all its weights share."""
        if cut not in self._casts:
            tensor = self._ir.tensor(narrow(self._cuts.indices[cut]), name=cut)
            stored = self._ir.Value(name=cut)
            stored.const_value = tensor
            stored.shape, stored.dtype = tensor.shape, tensor.dtype
            self._graph.register_initializer(stored)
            kind = {"to": self._ir.DataType.INT32}
            node = self._ir.node("Cast", [stored], kind)
            cast = self._casts[cut] = self._put(node, f"{cut}.int32")
            cast.shape, cast.dtype = stored.shape, self._ir.DataType.INT32
        return self._casts[cut]

    def _put(self, node: Any, name: str) -> Any:
        node.name = node.outputs[0].name = name
        self._graph.insert_before(self._first, node)
        return node.outputs[0]


def narrow(indices: np.ndarray) -> np.ndarray:
    """Return indices in the fewest bytes; Gather itself takes int32 only.

    Arguments
    ---------
    indices : np.ndarray
        Of an integer type, not negative.

    Returns
    -------
    np.ndarray
        uint16, or int32 where that is too narrow.

    Example
    -------
    >>> narrow(np.array([3, 65536])).dtype
    dtype('int32')
    """
    small = indices.size == 0 or indices.max() < 1 << 16
    return indices.astype(np.uint16 if small else np.int32)
