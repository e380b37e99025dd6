"""Linear layers in eight bits: weights beforehand, activations as they come.

A weight is a signed byte times a scale of its output channel; zero stays zero,
so that masks apply to the bytes. Activations are quantised in each run, by the
range that they have then. onnxruntime makes one operator of what stands here:

    DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul

`quantize_dynamic` of onnxruntime does this to a file, under names of its own
and with a zero point for each channel; here names must last, and a graph that
shares its weights has no such file. It changes the graph in memory only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from s3router.errors import MismatchError
from s3router.export.graph import onnx_ir, set_constant
from s3router.formats.graph_bytes import SCALE

#: Largest quantised weight. Processors without VNNI add two products in 16
#: bits: 2 x 255 x 64 fits. On the embedded encoder with real speech, 127 levels
#: would saturate there and make the logits' error 1.35 times as large; where
#: nothing saturates, 64 and 127 differ by less than 5 % of it, for activations
#: make most of it. Scales that cut off large weights, chosen by the squared
#: error of those kept, gained nothing there either.
LEVELS = 64


def quantize(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a weight as bytes and scales.

    Arguments
    ---------
    weight : numpy.ndarray
        float32, two dimensions.
    axis : int
        Which of them counts output channels.

    Returns
    -------
    tuple of numpy.ndarray
        int8 of the weight's shape, and float32 `(channels,)`: their product
        is the weight, within half a scale.

    Example
    -------
    >>> quantize(np.array([[0.0, -2.5], [128.0, 2.0]], np.float32), 0)[0]
    array([[  0, -64],
           [ 64,   1]], dtype=int8)
    """
    scale = np.abs(weight).max(axis=1 - axis) / np.float32(LEVELS)
    # A channel of zeros has no range; any scale will do.
    scale = np.where(scale > 0, scale, np.float32(1))
    levels = np.rint(weight / np.expand_dims(scale, 1 - axis))
    return levels.astype(np.int8), scale


def put_int8(model: Any, names: list[str], transposed: set[str]) -> None:
    """Make products with some weights products of integers.

    Arguments
    ---------
    model : onnx_ir.Model
        Of `build_graph`, changed in place. A weight keeps its name, and its
        scales stand beside it, under its name and `SCALE`.
    names : list of str
        Of weights of linear layers.
    transposed : set of str
        Which of all weights lie `(in, out)`.

    Raises
    ------
    MismatchError
        If the graph uses a weight for something else than a product.
    """
    graph, scales = model.graph, {}
    # Of equal weights the graph has one, under one of their names.
    for name in filter(graph.initializers.get, names):
        value = graph.initializers[name]
        check_product(value, transposed)
        levels, scale = quantize(value.const_value.numpy(), axis=1)
        set_constant(value, levels)
        scales[name] = put_scale(graph, name, onnx_ir().tensor(scale))
    use_integers(graph, scales)


def check_product(value: Any, transposed: set[str]) -> None:
    """Verify that a weight meets inputs in products only.

    Arguments
    ---------
    value : onnx_ir.Value
        The initialiser.
    transposed : set of str
        Which of all weights lie `(in, out)`.

    Raises
    ------
    MismatchError
        If the graph uses it for something else.
    """
    if value.name not in transposed or any(
        node.op_type != "MatMul" or place != 1 for node, place in value.uses()
    ):
        raise MismatchError(
            f"the graph does not use {value.name} as the weight of a linear "
            f"layer: export with precision fp16"
        )


def put_scale(graph: Any, name: str, tensor: Any) -> Any:
    """Put the scales of a weight into a graph.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Changed in place.
    name : str
        Of the weight.
    tensor : onnx_ir.TensorProtocol
        float32 `(channels,)`; may lie in another file.

    Returns
    -------
    onnx_ir.Value
        The initialiser, under the weight's name and `SCALE`.
    """
    value = onnx_ir().Value(name=f"{name}{SCALE}")
    value.const_value = tensor
    value.shape, value.dtype = tensor.shape, tensor.dtype
    graph.register_initializer(value)
    return value


def use_integers(graph: Any, scales: Mapping[str, Any]) -> None:
    """Make the products with some values products of integers.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Changed in place.
    scales : mapping of str to onnx_ir.Value
        Name of an int8 value `(in, out)` to its scales `(out,)`.
    """
    quantized: dict[str, Any] = {}
    for node in tuple(graph):
        if node.op_type == "MatMul" and node.inputs[1].name in scales:
            weight = node.inputs[1].name
            _replace(graph, node, scales[weight], quantized)


def _replace(
    graph: Any, product: Any, scales: Any, quantized: dict[str, Any]
) -> None:
    """Put operators on integers in the place of a MatMul."""
    ir = onnx_ir()
    (given, weight), (result,) = product.inputs, product.outputs
    nodes = []

    def node(kind: str, *inputs: Any, outputs: int = 1, **extra: object) -> Any:
        name = f"{result.name}.int8.{len(nodes)}"
        made = ir.node(kind, inputs, extra, num_outputs=outputs, name=name)
        for i, output in enumerate(made.outputs):
            output.name = f"{name}.{i}"
        nodes.append(made)
        return made.outputs[0]

    # Queries, keys and values are made of the same numbers.
    if given.name not in quantized:
        node("DynamicQuantizeLinear", given, outputs=3)
        quantized[given.name] = nodes[0].outputs
    levels, step, zero = quantized[given.name]
    sums = node("MatMulInteger", levels, weight, zero)
    sums = node("Cast", sums, to=ir.DataType.FLOAT)
    scaled = node("Mul", sums, node("Mul", step, scales))
    scaled.dtype, scaled.shape = result.dtype, result.shape
    name = result.name
    graph.insert_before(product, nodes)
    ir.convenience.replace_all_uses_with(
        result, scaled, replace_graph_outputs=True
    )
    graph.remove(product, safe=True)
    scaled.name = name
