"""From a folded model to an ONNX graph that stock onnxruntime runs.

The exporter renames and transposes the weights of linear layers; here they get
the names of their modules back, so that a graph can be compared with its
subnetwork, and, in a shared bundle, packed.
"""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s3router.errors import MissingDependencyError
from s3router.export.fold import FoldedModel
from s3router.runtime.session import LENGTHS

# Below 20, Gelu is taken apart and onnxruntime does not put it together.
OPSET = 20
# protobuf ends at 2 GiB; the graph itself needs some of it.
EMBED_BELOW = 2_000_000_000

#: Key of the names of initialisers that lie transposed in a graph.
TRANSPOSED = "s3router.transposed"
PRODUCER = "s3router"


def export_graph(
    model: FoldedModel,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the ONNX graph of a folded model.

    Input `input_values` (N, samples) float32, already normalised; output
    `logits` (N, frames, tokens) float32; N and samples are free. The
    initialisers bear the names of their modules, relative to the Hugging Face
    model, or `head.weight` and `head.bias`; those that the graph holds
    transposed are listed in its metadata under `TRANSPOSED`.

    Arguments
    ---------
    model : FoldedModel
        From `fold`.
    path : str or Path
        The file to write. Weights of 2 GB and more go to a file beside it.
    metadata : mapping of str to str, optional
        What else to write into the graph.

    Returns
    -------
    list of Path
        The files that were written, `path` first.

    Raises
    ------
    MissingDependencyError
        If onnx or onnxscript is not installed.
    """
    ir_model = build_graph(model)
    ir_model.metadata_props.update(metadata or {})
    return save_graph(ir_model, path)


def save_graph(
    ir_model: Any, path: str | Path, sparse: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a graph that is complete.

    Arguments
    ---------
    ir_model : onnx_ir.Model
        As from `build_graph`.
    path : str or Path
        The file to write. Weights of 2 GB and more go to a file beside it.
    sparse : mapping of str to onnx.SparseTensorProto, optional
        Its sparse weights by name, which onnx_ir does not write.

    Returns
    -------
    list of Path
        The files that were written, `path` first.
    """
    path = Path(path)
    weights = ir_model.graph.initializers.values()
    size = sum(value.const_value.nbytes for value in weights)
    external = [f"{path.name}.data"] * (size >= EMBED_BELOW)
    onnx_ir().save(ir_model, path, external_data=(external or [None])[0])
    if sparse:
        import onnx

        proto = onnx.load(path, load_external_data=False)
        for name, tensor in sparse.items():
            node = onnx.helper.make_node("Constant", [], [name], name)
            node.attribute.append(
                onnx.helper.make_attribute("sparse_value", tensor)
            )
            proto.graph.node.insert(0, node)
        onnx.save(proto, path)
    return [path, *(path.with_name(name) for name in external)]


def build_graph(model: FoldedModel) -> Any:
    """Return the ONNX graph of a model, in memory.

    Arguments
    ---------
    model : FoldedModel
        From `fold`; put into eval mode.

    Returns
    -------
    onnx_ir.Model
        As `export_graph` writes it, without other metadata.

    Raises
    ------
    MissingDependencyError
        If onnx or onnxscript is not installed.
    """
    model.eval()
    ir_model = _trace(model).model
    transposed = _rename(ir_model, _weights(model))
    _tidy(ir_model)
    ir_model.producer_name = PRODUCER
    ir_model.metadata_props[TRANSPOSED] = json.dumps(sorted(transposed))
    return ir_model


def transposed_names(model: Any) -> list[str]:
    """Return the initialisers that lie transposed in a graph.

    Arguments
    ---------
    model : onnx_ir.Model
        Of `build_graph`.

    Returns
    -------
    list of str
        Their names.
    """
    return json.loads(model.metadata_props[TRANSPOSED])


def onnx_ir() -> Any:
    """Return the module onnx_ir; only export needs it.

    Raises
    ------
    MissingDependencyError
        If it, onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnx_ir
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"export needs onnx and onnxscript ({error}): "
            f"pip install onnx onnxscript"
        ) from error
    return onnx_ir


def set_constant(value: Any, array: np.ndarray) -> None:
    """Make an array what an initialiser holds.

    Arguments
    ---------
    value : onnx_ir.Value
        Changed in place.
    array : numpy.ndarray
        Of any type and shape.
    """
    tensor = onnx_ir().tensor(array, name=value.name)
    value.const_value = tensor
    value.shape, value.dtype = tensor.shape, tensor.dtype


def constant(graph: Any, name: str, array: np.ndarray) -> Any:
    """Return an initialiser of a graph, made if it is not there.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Changed in place.
    name : str
        Of the initialiser.
    array : numpy.ndarray
        What it holds.

    Returns
    -------
    onnx_ir.Value
        The initialiser.
    """
    if name not in graph.initializers:
        value = onnx_ir().Value(name=name)
        set_constant(value, array)
        graph.register_initializer(value)
    return graph.initializers[name]


def _trace(model: FoldedModel) -> Any:
    """Run torch's exporter, quietly."""
    onnx_ir()
    # Two rows and several frames: sizes of one would be taken for constants.
    samples = 8 * model.encoder.min_samples
    examples = [torch.zeros(2, samples)]
    shapes = [{0: "batch", 1: "samples"}]
    if LENGTHS in model.inputs:
        examples.append(torch.tensor([samples, samples // 2]))
        shapes.append({0: "batch"})
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            model,
            tuple(examples),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(model.inputs),
            output_names=[model.output],
            dynamic_shapes=tuple(shapes),
            verbose=False,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mute what the exporter says of itself: warnings, missing torchvision."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _weights(model: FoldedModel) -> dict[str, np.ndarray]:
    """Return all weights and buffers by the name that the graph gives them."""
    state = model.encoder.model.state_dict()
    named = {name: value.numpy() for name, value in state.items()}
    for name, value in model.head.linear.state_dict().items():
        named[f"head.{name}"] = value.numpy()
    return named


def _rename(ir_model: Any, weights: Mapping[str, np.ndarray]) -> list[str]:
    """Give initialisers their modules' names; return those transposed.

    They are recognised by content. Of weights that are equal (biases of
    zeros) the exporter may keep one, which then gets the first name.
    """
    plain, turned = {}, {}
    for name, value in weights.items():
        plain.setdefault(content_key(value), name)
        if value.ndim == 2:
            turned.setdefault(content_key(value.T), name)
    graph, transposed, taken = ir_model.graph, [], set(weights)
    initializers = list(graph.initializers.values())
    # First out of the way, so that no new name meets an old one.
    for i, value in enumerate(initializers):
        value.name = f"constant_{i}"
    for value in initializers:
        if value.const_value.size < 2:
            continue
        key = content_key(value.const_value.numpy())
        name = plain.get(key)
        if name not in taken and (name := turned.get(key)) in taken:
            transposed.append(name)
        if name in taken:
            taken.discard(name)
            value.name = name
    return transposed


def content_key(value: np.ndarray) -> tuple:
    """Return what two arrays share only if they are equal, bit for bit.

    Arguments
    ---------
    value : np.ndarray
        Any array.

    Returns
    -------
    tuple
        dtype, shape and a hash of the bytes.

    Example
    -------
    >>> content_key(np.zeros(2)) == content_key(-np.zeros(2))
    False
    """
    value = np.ascontiguousarray(value)
    digest = hashlib.blake2b(value.data if value.size else b"").digest()
    return value.dtype.str, value.shape, digest


def _tidy(ir_model: Any) -> None:
    """Remove what tells of the machine that exported: paths, stack traces.

    And call the number of frames so: the exporter has a formula for its name.
    """
    ir = onnx_ir()
    ir.passes.common.ClearMetadataAndDocStringPass()(ir_model)
    graph = ir_model.graph
    outputs = [value for node in graph for value in node.outputs]
    for value in [*graph.inputs, *graph.initializers.values(), *outputs]:
        value.metadata_props.clear()
    shape = graph.outputs[0].shape
    if len(shape) > 2:
        graph.outputs[0].shape = ir.Shape([shape[0], "frames", shape[2]])
    ir_model.metadata_props.clear()
    ir_model.doc_string = None
