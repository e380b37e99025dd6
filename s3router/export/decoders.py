"""The nodes that put the values of a weight back between its zeros.

One decoder takes the place of one initialiser. `encodings` says which, and why.
Shapes are stated where they depend on data, as those of NonZero: onnxruntime
1.27 and later only computes at loading what it knows the size of.
"""

import math
from typing import Any

import numpy as np

from s3router.export.graph import onnx_ir
from s3router.export.shared import pack, unpacking_table

DENSE, GAPS, BITS, SPARSE = "dense", "gaps", "bits", "sparse"
#: The largest step of a gap. Farther on, a value of zero stands in between.
STEP = 255
_TABLE = "s3router.bits"


class Decoders:
    """Replaces the initialisers of one graph.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Changed in place.
    """

    def __init__(self, graph: Any) -> None:
        self._ir, self._graph, self._nodes = onnx_ir(), graph, []
        self._zeros: dict[tuple, Any] = {}
        #: The sparse tensors by name, which onnx_ir has no place for.
        self.sparse: dict[str, Any] = {}

    def replace(self, value: Any, array: np.ndarray, kind: str) -> None:
        """Put a decoder in the place of an initialiser.

        Arguments
        ---------
        value : onnx_ir.Value
            The initialiser.
        array : numpy.ndarray
            What it has.
        kind : str
            "dense", "gaps", "bits" or "sparse".
        """
        name, dtype, shape = value.name, value.dtype, value.shape
        if kind == DENSE:
            return
        uses = tuple(value.uses())
        del self._graph.initializers[name]
        value.name = f"{name}.replaced"
        decode = getattr(self, f"_{kind}")
        made = decode(name, array)
        made.name, made.dtype, made.shape = name, dtype, shape
        for user, position in uses:
            user.replace_input_with(position, made)

    def insert(self) -> None:
        """Put all decoders before the first node of the graph."""
        if self._nodes:
            self._graph.insert_before(self._graph[0], self._nodes)

    def _gaps(self, name: str, array: np.ndarray) -> Any:
        values, gaps = to_gaps(array, nonzero_places(array))
        steps = self._constant(f"{name}.gaps", gaps)
        steps = self._cast(name, steps)
        axis = self._constant("s3router.axis", np.array(0))
        places = self._node("CumSum", f"{name}.places", steps, axis)
        return self._scatter(name, array, places, values)

    def _bits(self, name: str, array: np.ndarray) -> Any:
        places = nonzero_places(array)
        kept = np.zeros(array.size, np.bool_)
        kept[places] = True
        bits = self._cast(name, self._constant(f"{name}.bits", pack(kept)))
        table = self._constant(_TABLE, unpacking_table())
        kept = self._node("Gather", f"{name}.kept", table, bits)
        flat = self._constant("s3router.flat", np.array([-1]))
        kept = self._node("Reshape", f"{name}.flat", kept, flat)
        found = self._node("NonZero", f"{name}.found", kept)
        found.dtype = self._ir.DataType.INT64
        found.shape = self._ir.Shape([1, len(places)])
        found = self._node("Reshape", f"{name}.places", found, flat)
        values = array.reshape(-1)[places]
        return self._scatter(name, array, found, values)

    def _sparse(self, name: str, array: np.ndarray) -> Any:
        import onnx

        places = nonzero_places(array)
        values = onnx.numpy_helper.from_array(array.reshape(-1)[places], name)
        self.sparse[name] = onnx.helper.make_sparse_tensor(
            values, onnx.numpy_helper.from_array(places), array.shape
        )
        dtype = self._ir.TensorType(self._ir.DataType.from_numpy(array.dtype))
        shape = self._ir.Shape(array.shape)
        return self._ir.Value(name=name, type=dtype, shape=shape)

    def _scatter(
        self, name: str, array: np.ndarray, places: Any, values: np.ndarray
    ) -> Any:
        """Return values at their places in zeros, in the tensor's shape."""
        values = self._constant(f"{name}.nonzeros", values)
        inputs = (self._zeros_like(array), places, values)
        flat = self._node("ScatterElements", f"{name}.line", *inputs, axis=0)
        shape = "x".join(map(str, array.shape))
        shape = self._constant(f"s3router.shape_{shape}", np.array(array.shape))
        made = self._node("Reshape", name, flat, shape)
        made.dtype = self._ir.DataType.from_numpy(array.dtype)
        made.shape = self._ir.Shape(array.shape)
        return made

    def _zeros_like(self, array: np.ndarray) -> Any:
        """Return flat zeros, one node for all tensors of a size."""
        key = array.size, array.dtype.name
        if key not in self._zeros:
            size = np.array([math.prod(array.shape)])
            size = self._constant(f"s3router.size_{array.size}", size)
            zero = self._ir.tensor(np.zeros(1, array.dtype))
            name = f"s3router.zeros_{array.size}_{array.dtype.name}"
            made = self._node("ConstantOfShape", name, size, value=zero)
            self._zeros[key] = made
        return self._zeros[key]

    def _cast(self, name: str, value: Any) -> Any:
        kind = self._ir.DataType.INT32
        return self._node("Cast", f"{name}.int32", value, to=kind)

    def _node(
        self, kind: str, name: str, *inputs: Any, **attributes: object
    ) -> Any:
        made = self._ir.node(kind, inputs, attributes, name=name)
        made.outputs[0].name = name
        self._nodes.append(made)
        return made.outputs[0]

    def _constant(self, name: str, array: np.ndarray) -> Any:
        """Return an initialiser, made if it is not there."""
        if name not in self._graph.initializers:
            tensor = self._ir.tensor(array, name=name)
            value = self._ir.Value(name=name, const_value=tensor)
            value.shape, value.dtype = tensor.shape, tensor.dtype
            self._graph.register_initializer(value)
        return self._graph.initializers[name]


def nonzero_places(array: np.ndarray) -> np.ndarray:
    """Return where values are, by their bits; the first place if nowhere.

    Arguments
    ---------
    array : numpy.ndarray
        Floating point, any shape, not empty.

    Returns
    -------
    numpy.ndarray
        int64, rising, places in the flattened tensor.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    places = np.flatnonzero(flat.view(f"u{flat.itemsize}"))
    # Operators on nothing at all are a corner that no runtime tests.
    return places if len(places) else np.zeros(1, np.int64)


def to_gaps(
    array: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a tensor, and how far apart they lie.

    Arguments
    ---------
    array : numpy.ndarray
        Any shape.
    places : numpy.ndarray
        Of `nonzero_places`.

    Returns
    -------
    tuple of numpy.ndarray
        Values and uint8 steps, of one length: the sums of the steps are the
        places. A zero stands wherever a step would be longer than `STEP`.

    Example
    -------
    >>> array = np.zeros(700, np.float32)
    >>> array[[3, 600]] = 1, 2
    >>> for part in to_gaps(array, nonzero_places(array)):
    ...     print(part)
    [1. 0. 0. 2.]
    [  3 255 255  87]
    """
    between = places_between(places)
    ends = np.cumsum(between + 1) - 1
    steps = np.full(len(places) + between.sum(), STEP, np.uint8)
    steps[ends] = np.diff(places, prepend=0) - STEP * between
    values = np.zeros(len(steps), array.dtype)
    values[ends] = array.reshape(-1)[places]
    return values, steps


def places_between(places: np.ndarray) -> np.ndarray:
    """Return how many zeros have to stand before each value.

    Arguments
    ---------
    places : numpy.ndarray
        Of `nonzero_places`.

    Returns
    -------
    numpy.ndarray
        int64, one for each place.
    """
    # A step of nothing would put a value where a zero stands; only the first
    # value may have one.
    return np.maximum(np.diff(places, prepend=0) - 1, 0) // STEP
