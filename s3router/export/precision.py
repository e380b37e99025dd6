"""How many bits a weight has in a bundle: choice, graph, and what is true then.

    fp16    matrices and kernels are stored in half precision and made float32
            when onnxruntime loads the graph; it computes as before
    int8    the linear layers of the transformer compute with bytes
            (`s3router.export.int8`), other matrices and kernels are stored as
            under fp16: a convolution computes in float32

Norms, biases, the head, and what is small stay float32 always: they are a
hundredth of the size, and the head is what logits are made with. A bundle is
compared with the model that it holds, weights rounded likewise, so that
rounding hides no fault; `s3router.export.accuracy` says what rounding costs.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.export.fold import FoldedModel, fold
from s3router.export.graph import onnx_ir, set_constant, transposed_names
from s3router.export.int8 import LEVELS, put_int8
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.targets import find_blocks
from s3router.models.encoder import load_encoder

#: By kind of weight: as what it is stored.
STORED = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}
#: Suffix of what a weight of half precision is cast to.
CAST = ".fp32"
#: What has fewer entries stays float32.
LEAST = 512


def choose_types(encoder: nn.Module, precision: str) -> dict[str, str]:
    """Return which weights have fewer than 32 bits.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model, without parametrizations.
    precision : str
        Of `s3router.formats.bundle.PRECISIONS`.

    Returns
    -------
    dict
        Name of a weight to "fp16" or "int8".
    """
    if precision == "fp32":
        return {}
    # Not parameters: a positional convolution's weight is a buffer, once its
    # weight norm is undone.
    types = {
        name: "fp16"
        for name, value in encoder.state_dict().items()
        if value.dim() >= 2 and value.numel() >= LEAST
    }
    if precision == "int8":
        blocks = find_blocks(encoder)
        linears = (name for b in blocks for name in b.linears("all"))
        types.update({f"{name}.weight": "int8" for name in linears})
    return types


def lower_graph(model: Any, types: Mapping[str, str]) -> None:
    """Store the weights of a graph in fewer bits.

    Arguments
    ---------
    model : onnx_ir.Model
        Of `build_graph`, changed in place.
    types : mapping of str to str
        Of `choose_types`.
    """
    transposed = set(transposed_names(model))
    int8 = [name for name, kind in types.items() if kind == "int8"]
    put_int8(model, int8, transposed)
    for name, kind in types.items():
        value = model.graph.initializers.get(name)
        if kind != "fp16" or value is None:
            continue
        users = tuple(value.uses())
        set_constant(value, value.const_value.numpy().astype(np.float16))
        made = cast_up(model.graph, value)
        for user, position in users:
            user.replace_input_with(position, made)


def cast_up(graph: Any, value: Any) -> Any:
    """Return a weight of half precision as the graph computes with it.

    Arguments
    ---------
    graph : onnx_ir.Graph
        Gets a node at its start.
    value : onnx_ir.Value
        An initialiser, float16.

    Returns
    -------
    onnx_ir.Value
        float32, under the initialiser's name and `CAST`.
    """
    ir = onnx_ir()
    made = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    (cast,) = made.outputs
    made.name = cast.name = f"{value.name}{CAST}"
    cast.dtype, cast.shape = ir.DataType.FLOAT, value.shape
    graph.insert_before(graph[0], [made])
    return cast


def fold_and_round(
    bundle: Bundle, source: str, subnetwork: Subnetwork
) -> tuple[FoldedModel, FoldedModel]:
    """Return a subnetwork's model, and that which a bundle holds of it.

    Arguments
    ---------
    bundle : Bundle
        Says layout and precision.
    source : str
        Where the encoder is.
    subnetwork : Subnetwork
        Made for it.

    Returns
    -------
    tuple of FoldedModel
        From `fold`, and from `round_model`.

    Raises
    ------
    MismatchError
        As `fold`.
    SettingError
        As `round_model`.
    """
    encoder, shared = load_encoder(source), None
    if bundle.layout == "shared":
        shared = shared_weights(encoder.model, bundle.precision)
    model = fold(encoder, subnetwork)
    return model, round_model(model, bundle.precision, shared)


def shared_weights(encoder: nn.Module, precision: str) -> dict[str, Tensor]:
    """Return copies of weights whose scales a shared file decides.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model, before a subnetwork is folded into it.
    precision : str
        Of the bundle.

    Returns
    -------
    dict
        Name to float32 tensor; empty where no weight has a scale.
    """
    types, state = choose_types(encoder, precision), encoder.state_dict()
    return {
        name: state[name].clone()
        for name, kind in types.items()
        if kind == "int8"
    }


@torch.no_grad()
def round_model(
    model: FoldedModel,
    precision: str,
    shared: Mapping[str, Tensor] | None = None,
) -> FoldedModel:
    """Return the model whose weights are those of a bundle, in float32.

    Arguments
    ---------
    model : FoldedModel
        From `fold`.
    precision : str
        Of the bundle.
    shared : mapping of str to torch.Tensor, optional
        Of `shared_weights`: the scale of a channel is that of its weights
        before they were masked.

    Returns
    -------
    FoldedModel
        A copy; the model itself where nothing is rounded.

    Raises
    ------
    SettingError
        If a weight is too large for half precision.
    """
    types = choose_types(model.encoder.model, precision)
    if not types:
        return model
    rounded = copy.deepcopy(model)
    state = rounded.encoder.model.state_dict()
    for name, kind in types.items():
        weight = state[name]
        if kind == "fp16":
            weight.copy_(weight.half().float())
            if not weight.isfinite().all():
                raise SettingError(
                    f"precision {precision}: the weight {name} has entries "
                    f"that are too large for half precision; use fp32"
                )
            continue
        source = (shared or {}).get(name, weight)
        scale = source.abs().amax(dim=1, keepdim=True) / LEVELS
        scale[scale == 0] = 1
        levels = (source / scale).round()
        # Plus zero, for a byte knows no negative zero.
        weight.copy_((levels * scale).where(weight != 0, 0.0) + 0.0)
    return rounded
