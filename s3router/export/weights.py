"""Are the weights in a graph those that they should be? Bit for bit.

Reads a graph as `s3router.export.stored` does, in plain numpy: mask bits, bytes
and scales, half precision, and what is gathered from the backbone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import VerificationError
from s3router.export.cuts import Cuts
from s3router.export.fold import FoldedModel
from s3router.export.gathered import read_gathered
from s3router.export.graph import TRANSPOSED
from s3router.export.precision import STORED
from s3router.export.stored import StoredWeights
from s3router.formats.graph_bytes import MASK_BITS, SCALE


def check_weights(
    path: str | Path,
    model: FoldedModel,
    masks: Mapping[str, np.ndarray],
    types: Mapping[str, str] | None = None,
    cuts: Cuts | None = None,
) -> tuple[int, int]:
    """Verify a graph and its masked or rounded weights, bit for bit.

    Arguments
    ---------
    path : str or Path
        The ONNX graph.
    model : FoldedModel
        Whose weights it should hold.
    masks : mapping of str to np.ndarray
        Which of them are zero.
    types : mapping of str to str, optional
        Of `choose_types`: what is stored in fewer bits.
    cuts : Cuts, optional
        What the graph is without; nothing, if not given.

    Returns
    -------
    tuple of int
        Number of masked tensors, and of zeros in them.

    Raises
    ------
    VerificationError
        If the graph is invalid, or a weight is missing or differs.
    """
    graph = _load(path)
    types, cuts, zeros = types or {}, cuts or Cuts(), 0
    _check_kept(path, graph.graph, model, cuts)
    reader = _Reader(path, graph, types, cuts)
    state = model.encoder.model.state_dict()
    for name in {**{f"{owner}.weight": None for owner in masks}, **types}:
        owner = name.removesuffix(".weight")
        weight = state[name].numpy()
        mask = masks.get(owner, np.ones(weight.shape, np.bool_))
        value = reader.read(name, owner, mask)
        if value is None and weight.any():
            raise VerificationError(f"{path} has no weight {name}")
        # The exporter keeps one of several tensors of nothing but zeros.
        value = weight if value is None else value
        if value.shape != mask.shape or value.tobytes() != weight.tobytes():
            raise VerificationError(f"{path}: the weight {name} differs")
        if np.count_nonzero(value[~mask]):
            raise VerificationError(
                f"{path}: {name} is not zero at all "
                f"{np.count_nonzero(~mask)} places that its mask removes"
            )
        if owner in masks:
            zeros += int(value.size - np.count_nonzero(value))
    return len(masks), zeros


def _load(path: str | Path) -> Any:
    """Return a graph, onnx.ModelProto, with its weights; it is valid."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as e:
        raise VerificationError(
            f"{path} is not valid ONNX: {' '.join(str(e).split())[:200]}"
        ) from e
    return onnx.load(str(path))


class _Reader:
    """Reads weights of a graph as float32 of whole shape, masked."""

    def __init__(
        self, path: str | Path, graph: Any, types: Mapping[str, str], cuts: Cuts
    ) -> None:
        self._path, self._graph = path, graph.graph
        self._types, self._cuts = types, cuts
        self._stored = StoredWeights(graph)
        properties = {p.key: p.value for p in graph.metadata_props}
        self._transposed = set(json.loads(properties.get(TRANSPOSED, "[]")))

    def read(
        self, name: str, owner: str, mask: np.ndarray
    ) -> np.ndarray | None:
        """Return a weight; None if the graph has none of that name."""
        value = self._stored.get(name)
        if value is None:
            return None
        if value.dtype != STORED[self._types.get(name, "fp32")]:
            raise VerificationError(f"{self._path}: {name} is {value.dtype}")
        value = read_gathered(self._graph, name, value)
        turned = name in self._transposed
        if (bits := self._stored.get(f"{owner}{MASK_BITS}")) is not None:
            keep = _unpack(bits, value.shape)
            wanted = self._cuts.take(name, mask)
            if not np.array_equal(keep.T if turned else keep, wanted):
                raise VerificationError(
                    f"{self._path}: the mask of {name} differs"
                )
            value = np.where(keep, value, value.dtype.type(0))
        value = self._scaled(name, value.astype(np.float32))
        return self._cuts.widen(name, value.T if turned else value)

    def _scaled(self, name: str, levels: np.ndarray) -> np.ndarray:
        scale = self._stored.get(f"{name}{SCALE}")
        if scale is None:
            return levels
        scale = read_gathered(self._graph, f"{name}{SCALE}", scale)
        if scale.shape != levels.shape[1:]:
            raise VerificationError(
                f"{self._path}: the scales of {name} are not of its channels"
            )
        return levels * scale


def _check_kept(
    path: str | Path, graph: Any, model: FoldedModel, cuts: Cuts
) -> None:
    """Raise VerificationError if other biases are kept than should be.

    Weights are compared in their whole shape, with zeros where they are cut.
    """
    import onnx

    state = model.encoder.model.state_dict()
    for tensor in graph.initializer:
        if tensor.name not in cuts.axes or state[tensor.name].ndim != 1:
            continue
        value = onnx.numpy_helper.to_array(tensor)
        value = read_gathered(graph, tensor.name, value)
        kept = cuts.take(tensor.name, state[tensor.name].numpy())
        if value.shape != kept.shape or value.tobytes() != kept.tobytes():
            raise VerificationError(f"{path}: {tensor.name} differs")


def _unpack(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask, bool, from what a graph of layout "shared" has."""
    count = int(np.prod(shape))
    flat = np.unpackbits(bits, count=count, bitorder="little")
    return flat.astype(np.bool_).reshape(shape)
