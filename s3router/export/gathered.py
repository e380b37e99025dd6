"""Smaller graphs over the one file of weights: the structured languages.

The graph is that of the smaller model. Its weights are not in it: what is whole
is named in `backbone.bin` as in any language's graph, and of what is cut there
is only the list of kept rows and columns, with

    indices -> Cast int32 -> Gather(weight, indices)

in front of it, behind the Cast of a weight of half precision, which
onnxruntime carries out when it loads the graph. Weights are found in the
backbone by their content: the exporter may have kept one of several equal
ones. Those of bytes are found by their names, and their scales, which are
those of whole channels, are gathered where output channels are cut.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import nn

from s3router.errors import MismatchError
from s3router.export.compact import compact
from s3router.export.cuts import Cuts
from s3router.export.fold import FoldedModel
from s3router.export.gathers import Gathers, narrow
from s3router.export.graph import (
    build_graph,
    content_key,
    onnx_ir,
    transposed_names,
)
from s3router.export.int8 import SCALE, check_product, put_scale, use_integers
from s3router.export.precision import cast_up
from s3router.masks.targets import find_blocks


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
        held = {tensor.name: tensor for tensor in tensors}
        #: Name of a weight of bytes to these, and to its scales.
        self._bytes = {
            name: (tensor, held[f"{name}{SCALE}"])
            for name, tensor in held.items()
            if f"{name}{SCALE}" in held
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

        Raises
        ------
        MismatchError
            If weights of bytes, whose scales are those of whole channels,
            cannot be told apart in the smaller graph.
        """
        bytes_ = self._bytes_in(model.encoder.model, cuts)
        state = model.encoder.model.state_dict()
        whole = {name: state[name].numpy() for name in cuts.axes}
        rest = [v.numpy() for k, v in state.items() if k not in whole]
        shape = _shape_of(cuts, whole, rest, model.encoder.family)
        if shape not in self._made:
            made = build_graph(compact(model, cuts))
            self._refer(made, cuts, whole, bytes_)
            self._made[shape] = self._ir.to_proto(made)
        made = self._ir.from_proto(self._made[shape])
        self._fill(made, cuts, whole)
        return made

    def _bytes_in(self, encoder: nn.Module, cuts: Cuts) -> list[str]:
        """Return which weights of a smaller model are of bytes."""
        if not self._bytes:
            return []
        linears = [n for b in find_blocks(encoder) for n in b.linears("all")]
        return [f"{n}.weight" for n in linears if not cuts.without(n)]

    def _fill(
        self, model: Any, cuts: Cuts, whole: Mapping[str, np.ndarray]
    ) -> None:
        """Put a language's own arrays into a graph of its shape."""
        arrays = {name: narrow(kept) for name, kept in cuts.indices.items()}
        turned = set(transposed_names(model))
        for name, array in whole.items():
            small = cuts.take(name, array)
            arrays[name] = small.T if name in turned else small
        for name, array in arrays.items():
            value = model.graph.initializers.get(name)
            external = self._ir.ExternalTensor
            if (
                value is None
                or name in self._bytes
                or isinstance(value.const_value, external)
            ):
                continue
            array = np.ascontiguousarray(array)
            value.const_value = self._ir.tensor(array, name=name)

    def _refer(
        self,
        model: Any,
        cuts: Cuts,
        whole: Mapping[str, np.ndarray],
        bytes_: list[str],
    ) -> None:
        """Replace the arrays in a graph by references and gathers."""
        graph, turned = model.graph, set(transposed_names(model))
        self._check_bytes(graph, bytes_)
        gathers, gathered, scales = Gathers(graph, cuts), {}, {}
        values = graph.initializers.values()
        # Of several that are equal one has a name; it comes first.
        for value in sorted(values, key=lambda v: v.name not in cuts.axes):
            array, name = value.const_value.numpy(), value.name
            axes, key = cuts.axes.get(name, {}), content_key(array)
            if name in bytes_:
                scales.update(self._refer_bytes(value, gathers, axes, turned))
                continue
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
            users = tuple(value.uses())
            _hold(value, tensor)
            kept = cast_up(graph, value) if name in self._halves else value
            if name in turned:
                axes = _turn(axes)
            kept = gathers.take(kept, axes, name)
            if axes:
                gathered[key] = kept
            for user, position in users:
                user.replace_input_with(position, kept)
        use_integers(graph, scales)

    def _check_bytes(self, graph: Any, names: list[str]) -> None:
        """Raise MismatchError if a weight of bytes has no name of its own.

        The scales of one that is equal in what is kept may be others.
        """
        for name in names:
            if name not in graph.initializers or name not in self._bytes:
                raise MismatchError(
                    f"{name} is equal to another weight, or has nothing to "
                    "tell it by"
                )

    def _refer_bytes(
        self, value: Any, gathers: Gathers, axes: dict, turned: set[str]
    ) -> dict[str, Any]:
        """Replace a weight by gathered bytes; return its gathered scales."""
        check_product(value, turned)
        name, users = value.name, tuple(value.uses())
        levels, scale = self._bytes[name]
        _hold(value, levels)
        kept = gathers.take(value, _turn(axes), name)
        for user, position in users:
            user.replace_input_with(position, kept)
        scales = put_scale(value.graph, name, scale)
        rows = {axis: cut for axis, cut in axes.items() if axis == 0}
        return {kept.name: gathers.take(scales, rows, scales.name)}


def _turn(axes: Mapping[int, str]) -> dict[int, str]:
    """Return the axes of a matrix as those of the transposed one."""
    return {1 - axis: cut for axis, cut in axes.items()}


def _hold(value: Any, tensor: Any) -> None:
    """Make an initialiser that of a tensor of the backbone."""
    value.const_value = tensor
    value.shape, value.dtype = tensor.shape, tensor.dtype


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
            (name, len(kept), narrow(kept).dtype)
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
