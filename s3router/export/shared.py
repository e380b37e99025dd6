"""Many languages over one file of weights: layout "shared".

`backbone.bin` has what all languages have in common: weights unmasked, biases,
norms. The graph of a language has its head and its mask, a bit for a weight,
and unpacks them with standard operators of static shapes, which onnxruntime
carries out once, when it loads the graph (or in each run, if told so):

    bits -> Cast int32 -> Gather in a table of 256 x 8 bools -> Reshape
         -> Where(mask, weight, 0)

Graphs and backbone lie in one folder: neither onnx nor onnxruntime opens
weights outside the folder of the graph.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import MismatchError
from s3router.export.cuts import Cuts
from s3router.export.fold import FoldedModel
from s3router.export.gathered import GatheredGraphs, slim
from s3router.export.gathers import KEPT
from s3router.export.graph import (
    build_graph,
    constant,
    onnx_ir,
    set_constant,
    transposed_names,
)
from s3router.export.precision import CAST
from s3router.formats.bundle import BACKBONE
from s3router.formats.graph_bytes import MASK_BITS
from s3router.models.heads import CTCHead

#: What fewer bytes have stays in the graph: mostly shapes, which inference of
#: shapes has to see.
SMALL = 64
#: Of a page: what begins on one is mapped and not copied.
PAGE = 4096
_TABLE = "s3router.bits"


class SharedGraph:
    """One graph of an encoder, to which each language adds mask and head.

    Arguments
    ---------
    model : FoldedModel
        The encoder without masks, under any head.
    folder : str or path
        Where `backbone.bin` is written.
    change : callable, optional
        Is given the onnx_ir.Model, without masks, before it is written.
    """

    def __init__(
        self,
        model: FoldedModel,
        folder: str | os.PathLike,
        change: Callable[[Any], None] | None = None,
    ) -> None:
        self._ir = onnx_ir()
        self.folder = Path(folder)
        graph = build_graph(model)
        if change is not None:
            change(graph)
        self._transposed = set(transposed_names(graph))
        self._move_out(graph)
        self._proto = self._ir.to_proto(graph)
        self._gathered: GatheredGraphs | None = None

    def gathered(self, model: FoldedModel, cuts: Cuts) -> Any:
        """Return a smaller graph over the same weights, for `write`.

        Arguments
        ---------
        model : FoldedModel
            The encoder without masks, under any head; used up.
        cuts : Cuts
            What is cut out of it.

        Returns
        -------
        onnx_ir.Model
            See `s3router.export.gathered`.

        Raises
        ------
        MismatchError
            As `GatheredGraphs.graph`; then the whole graph serves.
        """
        if self._gathered is None:
            graph = self.model().graph
            for value in graph.initializers.values():
                if isinstance(value.const_value, self._ir.ExternalTensor):
                    value.const_value.base_dir = self.folder
            self._gathered = GatheredGraphs(graph.initializers.values())
        return self._gathered.graph(model, cuts)

    def model(self) -> Any:
        """Return a copy of the graph, onnx_ir.Model, to be changed."""
        return self._ir.from_proto(self._proto)

    def write(
        self,
        path: str | os.PathLike,
        masks: Mapping[str, np.ndarray],
        head: CTCHead,
        metadata: Mapping[str, str],
        finish: Callable[[Any], None] = lambda model: None,
        graph: Any = None,
    ) -> None:
        """Write the graph of a language.

        Arguments
        ---------
        path : str or path
            In the folder of the backbone.
        masks : mapping of str to numpy.ndarray
            By linear layer: bool `(out, in)`, True where kept.
        head : CTCHead
            Of the language.
        metadata : mapping of str to str
            What else to write into the graph.
        finish : callable
            Is given the onnx_ir.Model, to finish it, before it is written.
        graph : onnx_ir.Model, optional
            From `gathered`, with masks of that size; used up. The whole
            encoder's, if not given.

        Raises
        ------
        MismatchError
            If a masked layer has no weight of its own in the graph.
        """
        model = graph or self.model()
        model.metadata_props.update(metadata)
        self._put_head(model.graph, head)
        nodes = []
        for owner in sorted(masks):
            nodes += self._mask(model.graph, owner, masks[owner])
        if nodes:
            model.graph.insert_before(model.graph[0], nodes)
        # Weights are cast and gathered before they are masked.
        model.graph.sort()
        finish(model)
        if graph is not None:
            slim(model.graph)
        self._ir.save(model, path)

    def _move_out(self, model: Any) -> None:
        """Write what is large, but for the head, into the backbone."""
        ir, path = self._ir, self.folder / BACKBONE
        with path.open("wb") as file:
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor.nbytes < SMALL or value.name.startswith("head."):
                    continue
                grain = PAGE if tensor.nbytes >= PAGE else 64
                file.write(bytes(-file.tell() % grain))
                offset = file.tell()
                file.write(tensor.tobytes())
                value.const_value = ir.ExternalTensor(
                    BACKBONE,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=value.name,
                    base_dir=self.folder,
                )

    def _put_head(self, graph: Any, head: CTCHead) -> None:
        """Replace the head, and say how many tokens come out."""
        linear = head.linear
        for key, value in linear.state_dict().items():
            name = f"head.{key}"
            array = value.numpy()
            if name in self._transposed:
                array = np.ascontiguousarray(array.T)
            set_constant(graph.initializers[name], array)
            for node in graph.initializers[name].consumers():
                for output in node.outputs:
                    self._end_in(output, linear.out_features)

    def _end_in(self, value: Any, size: int) -> None:
        """Set the last dimension of a value and of what is made of it."""
        value.shape = self._ir.Shape([*value.shape[:-1], size])
        for node in value.consumers():
            for output in node.outputs:
                self._end_in(output, size)

    def _mask(self, graph: Any, owner: str, mask: np.ndarray) -> list[Any]:
        """Return the nodes between a weight and those who use it."""
        weight = _weight(graph, f"{owner}.weight")
        if weight is None:
            raise MismatchError(
                f"the weight of {owner} is equal to another one, so that the "
                "graph has one for both: export with layout standalone"
            )
        if f"{owner}.weight" in self._transposed:
            mask = mask.T
        put, nodes = partial(constant, graph), []

        def node(kind: str, *inputs: Any, **attributes: object) -> Any:
            name = f"{owner}.mask.{len(nodes)}"
            made = ir.node(kind, inputs, attributes, name=name)
            made.outputs[0].name = name
            nodes.append(made)
            return made.outputs[0]

        ir = self._ir
        bits = put(f"{owner}{MASK_BITS}", pack(mask))
        index = node("Cast", bits, to=ir.DataType.INT32)
        keep = node("Gather", put(_TABLE, unpacking_table()), index)
        if mask.size % 8:
            flat = put("s3router.flat", np.array([-1]))
            keep = node("Reshape", keep, flat)
            begin = put("s3router.begin", np.array([0]))
            end = put(f"s3router.end_{mask.size}", np.array([mask.size]))
            keep = node("Slice", keep, begin, end)
        name = "s3router.shape_" + "x".join(map(str, mask.shape))
        keep = node("Reshape", keep, put(name, np.array(mask.shape)))
        # Of what was gathered nothing is stated: it can be inferred.
        kind = weight.dtype.numpy() if weight.dtype else np.dtype(np.float32)
        zero = put(f"s3router.zero_{kind}", np.zeros((), kind))
        users = tuple(weight.uses())
        masked = node("Where", keep, weight, zero)
        masked.type, masked.shape = weight.type, weight.shape
        for user, position in users:
            user.replace_input_with(position, masked)
        return nodes


def _weight(graph: Any, name: str) -> Any:
    """Return a weight as it is before any mask: cast, and gathered.

    onnxruntime would leave a mask on half precision to every run.
    """
    value = graph.initializers.get(name)
    made = (f"{name}{CAST}", f"{name}{KEPT}")
    while value is not None:
        outputs = [node.outputs[0] for node in value.consumers()]
        following = [out for out in outputs if out.name.startswith(made)]
        if not following:
            break
        (value,) = following
    return value


def pack(mask: np.ndarray) -> np.ndarray:
    """Return a mask as bytes of eight entries, lowest bit first.

    Arguments
    ---------
    mask : numpy.ndarray
        bool, any shape.

    Returns
    -------
    numpy.ndarray
        uint8 `(ceil(entries / 8),)`, as in a mask file.

    Example
    -------
    >>> pack(np.array([[True, False, True]]))
    array([5], dtype=uint8)
    """
    return np.packbits(mask.reshape(-1), bitorder="little")


def unpacking_table() -> np.ndarray:
    """Return (256, 8) bool: the entries of each byte."""
    values = np.arange(256, dtype=np.uint8)[:, None]
    return np.unpackbits(values, axis=1, bitorder="little").astype(np.bool_)
