"""Reads the weights of a graph back, in plain numpy: for verification.

Knows the ways in which `decoders` stores a weight, but shares no code with
what wrote them.
"""

import math
from typing import Any

import numpy as np


class StoredWeights:
    """The weights of a graph, by name, decoded.

    Arguments
    ---------
    proto : onnx.ModelProto
        The graph, with its external data.
    """

    def __init__(self, proto: Any) -> None:
        graph = proto.graph
        self._arrays = {t.name: t for t in graph.initializer}
        self._makers = {o: n for n in graph.node for o in n.output}

    def get(self, name: str) -> np.ndarray | None:
        """Return a weight as the graph computes with it.

        Arguments
        ---------
        name : str
            Of an initialiser, or of what a decoder makes.

        Returns
        -------
        numpy.ndarray or None
            None if the graph has no such weight.
        """
        import onnx

        if tensor := self._arrays.get(name):
            return onnx.numpy_helper.to_array(tensor)
        maker = self._makers.get(name)
        if maker is None:
            return None
        if maker.op_type == "Constant":
            sparse = maker.attribute[0].sparse_tensor
            values = onnx.numpy_helper.to_array(sparse.values)
            places = onnx.numpy_helper.to_array(sparse.indices)
            return _place(values, places, tuple(sparse.dims))
        if maker.op_type == "Cast":
            value = self.get(maker.input[0])
            kind = onnx.helper.tensor_dtype_to_np_dtype(maker.attribute[0].i)
            return None if value is None else value.astype(kind)
        return self._decode(name, maker)

    def _decode(self, name: str, reshape: Any) -> np.ndarray | None:
        values = self.get(f"{name}.nonzeros")
        if reshape.op_type != "Reshape" or values is None:
            return None
        shape = tuple(self.get(reshape.input[1]).tolist())
        if (steps := self.get(f"{name}.gaps")) is not None:
            places = np.cumsum(steps, dtype=np.int64)
        else:
            bits = np.unpackbits(self.get(f"{name}.bits"), bitorder="little")
            places = np.flatnonzero(bits)
        return _place(values, places, shape)


def _place(
    values: np.ndarray, places: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Return zeros of a shape with values at places of the flat tensor."""
    flat = np.zeros(math.prod(shape), values.dtype)
    flat[places] = values
    return flat.reshape(shape)
