"""Smaller graphs over the one file of weights: the structured languages.

The graph is that of the smaller model. Its weights are not in it: what is whole
is named in `backbone.bin` as in any language's graph, and of what is cut there
is only the list of kept rows and columns, with

    indices -> Cast int32 -> Gather(weight, indices)

in front of it, behind the Cast of a weight of half precision, which
onnxruntime carries out when it loads the graph. Weights are found in the
backbone by their content: the exporter may have kept one of several equal
ones.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from s3router.export.compact import compact
from s3router.export.cuts import Cuts
from s3router.export.fold import FoldedModel
from s3router.export.graph import (
    build_graph,
    content_key,
    onnx_ir,
    transposed_names,
)
from s3router.export.precision import cast_up

#: Suffix of what a gather gives: the kept part of a weight.
KEPT = ".kept"


class GatheredGraphs:
    """Graphs of smaller models over a backbone that is written already.

    Arguments
    ---------
    initializers : iterable of onnx_ir.Value
        Of the whole graph; those with external data are the backbone.
    """

    def __init__(self, initializers: Iterable[Any]) -> None:
        self._ir = onnx_ir()
        external = self._ir.ExternalTensor
        tensors = [value.const_value for value in initializers]
        self._stored = {
            content_key(tensor.numpy()): tensor
            for tensor in tensors
            if isinstance(tensor, external)
        }
        self._halves = {
            tensor.name
            for tensor in self._stored.values()
            if tensor.dtype == self._ir.DataType.FLOAT16
        }
        self._made: dict[tuple, Any] = {}

    def graph(self, model: FoldedModel, cuts: Cuts) -> Any:
        """Return the graph of a smaller model, with gathers for its weights.

        Arguments
        ---------
        model : FoldedModel
            Of whole shape, without masks; used up.
        cuts : Cuts
            What is cut out of it.

        Returns
        -------
        onnx_ir.Model
            Not shared with that of any other call.
        """
        state = model.encoder.model.state_dict()
        whole = {name: state[name].numpy() for name in cuts.axes}
        rest = [v.numpy() for k, v in state.items() if k not in whole]
        shape = _shape_of(cuts, whole, rest, model.encoder.family)
        if shape not in self._made:
            made = build_graph(compact(model, cuts))
            self._refer(made, cuts, whole)
            self._made[shape] = self._ir.to_proto(made)
        made = self._ir.from_proto(self._made[shape])
        self._fill(made, cuts, whole)
        return made

    def _fill(
        self, model: Any, cuts: Cuts, whole: Mapping[str, np.ndarray]
    ) -> None:
        """Put a language's own arrays into a graph of its shape."""
        arrays = {name: _narrow(kept) for name, kept in cuts.indices.items()}
        turned = set(transposed_names(model))
        for name, array in whole.items():
            small = cuts.take(name, array)
            arrays[name] = small.T if name in turned else small
        for name, array in arrays.items():
            value = model.graph.initializers.get(name)
            if value is None or isinstance(
                value.const_value, self._ir.ExternalTensor
            ):
                continue
            array = np.ascontiguousarray(array)
            value.const_value = self._ir.tensor(array, name=name)

    def _refer(
        self, model: Any, cuts: Cuts, whole: Mapping[str, np.ndarray]
    ) -> None:
        """Replace the arrays in a graph by references and gathers."""
        graph, turned = model.graph, set(transposed_names(model))
        first, casts, gathered = graph[0], {}, {}
        values = graph.initializers.values()
        # Of several that are equal one has a name; it comes first.
        for value in sorted(values, key=lambda v: v.name not in cuts.axes):
            array, name = value.const_value.numpy(), value.name
            axes, key = cuts.axes.get(name, {}), content_key(array)
            if key in gathered:
                _replace(value, gathered[key])
                del graph.initializers[name]
                continue
            if axes:
                array = whole[name].T if name in turned else whole[name]
            if name in self._halves:
                array = array.astype(np.float16)
            tensor = self._stored.get(content_key(array))
            if tensor is None:
                continue  # small, or the head's: it stays in the graph
            small = value.shape
            value.const_value = tensor
            value.shape, value.dtype = tensor.shape, tensor.dtype
            users, kept = tuple(value.uses()), value
            if name in self._halves:
                kept = cast_up(graph, value)
            for axis, cut in axes.items():
                axis = len(small) - 1 - axis if name in turned else axis
                index = self._index(graph, first, cut, cuts, casts)
                node = self._ir.node("Gather", [kept, index], {"axis": axis})
                shape = list(kept.shape)
                shape[axis] = small[axis]
                kept = self._put(node, graph, first, f"{name}{KEPT}.{axis}")
                kept.shape = self._ir.Shape(shape)
                kept.dtype = kept.producer().inputs[0].dtype
            if axes:
                kept.name, gathered[key] = f"{name}{KEPT}", kept
            for user, position in users:
                user.replace_input_with(position, kept)

    def _index(
        self,
        graph: Any,
        first: Any,
        cut: str,
        cuts: Cuts,
        casts: dict[str, Any],
    ) -> Any:
        """Return the indices of a cut, which all its weights share."""
        if cut not in casts:
            narrow = _narrow(cuts.indices[cut])
            stored = self._ir.Value(name=cut)
            stored.const_value = self._ir.tensor(narrow, name=cut)
            stored.shape = stored.const_value.shape
            stored.dtype = stored.const_value.dtype
            graph.register_initializer(stored)
            kind = {"to": self._ir.DataType.INT32}
            node = self._ir.node("Cast", [stored], kind)
            casts[cut] = self._put(node, graph, first, f"{cut}.int32")
            casts[cut].shape = stored.shape
            casts[cut].dtype = self._ir.DataType.INT32
        return casts[cut]

    def _put(self, node: Any, graph: Any, first: Any, name: str) -> Any:
        node.name = node.outputs[0].name = name
        graph.insert_before(first, node)
        return node.outputs[0]


def _replace(value: Any, other: Any) -> None:
    for user, position in tuple(value.uses()):
        user.replace_input_with(position, other)


def slim(graph: Any) -> None:
    """Leave out what can be inferred: it is as much as what is needed.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Finished; its values lose their types, its nodes their names.
    """
    inner = [value for node in graph for value in node.outputs]
    for value in [*inner, *graph.initializers.values()]:
        if not value.is_graph_output():
            value.shape = value.type = None
    for node in graph:
        node.name = None


def read_gathered(graph: Any, name: str, value: np.ndarray) -> np.ndarray:
    """Return what a graph makes of a weight by gathers, with numpy.

    Arguments
    ---------
    graph : onnx.GraphProto
        With its weights.
    name : str
        Of the initialiser.
    value : np.ndarray
        What is stored.

    Returns
    -------
    np.ndarray
        What is kept; `value` itself where nothing is gathered from it.
    """
    import onnx

    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Cast"}
    for cast, source in casts.items():
        name = cast if source == name else name
    for node in graph.node:
        # A gather's second input are indices; embeddings gather by others.
        index = (
            stored.get(casts.get(node.input[1], ""))
            if (node.op_type == "Gather" and node.input[0] == name)
            else None
        )
        if index is not None:
            axis = node.attribute[0].i
            value = value.take(onnx.numpy_helper.to_array(index), axis)
            name = node.output[0]
    return value


def _narrow(indices: np.ndarray) -> np.ndarray:
    """Return indices in the fewest bytes; Gather itself takes int32 only."""
    small = indices.size == 0 or indices.max() < 1 << 16
    return indices.astype(np.uint16 if small else np.int32)


def _shape_of(
    cuts: Cuts,
    whole: Mapping[str, np.ndarray],
    rest: list[np.ndarray],
    family: str,
) -> tuple:
    """Return what two cuts share only if one graph serves both.

    Besides the numbers of what is kept, that is which vectors are equal (the
    exporter keeps one of them), and indices that do not stay in one place:
    heads of WavLM, channels under a norm, which the exporter reshapes, and
    single ones, whose biases it makes nameless.
    """
    names = {content_key(array): "" for array in rest if array.ndim == 1}
    equal = tuple(
        names.setdefault(content_key(cuts.take(name, array)), name)
        for name, array in whole.items()
    )
    moved = (".conv_layers.0.channels",)
    if family == "wavlm":
        moved += (".heads",)
    return (
        tuple(
            (name, len(kept), _narrow(kept).dtype)
            for name, kept in cuts.indices.items()
        ),
        tuple(cuts.gone),
        equal,
        tuple(
            kept.tobytes()
            for name, kept in cuts.indices.items()
            if name.endswith(moved) or len(kept) == 1
        ),
    )
