"""What quantised activations do to logits, in torch.

onnxruntime quantises the input of a linear layer by its range at that moment.
Here the same is done in torch, to tell how far logits move by it: as far as a
bundle of precision int8 may be from the model whose weights it has.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from s3router.export.fold import FoldedModel

_ADDMM, _MM = torch.ops.aten.addmm.default, torch.ops.aten.mm.default
# Where the input of a product stands.
_INPUT = {_ADDMM: 1, _MM: 0}


def quantize_input(values: Tensor) -> Tensor:
    """Return what a tensor is after DynamicQuantizeLinear, in float32.

    Arguments
    ---------
    values : torch.Tensor
        float32, any shape: one range for all.

    Returns
    -------
    torch.Tensor
        The same, each rounded to one of 256 steps, of which zero is one.

    Example
    -------
    >>> quantize_input(torch.tensor([0.0, 0.004, 2.55]))
    tensor([0.0000, 0.0000, 2.5500])
    """
    low = values.amin().clamp(max=0)
    step = (values.amax().clamp(min=0) - low) / 255
    if step == 0:
        return values
    zero = (-low / step).round().clamp(0, 255)
    levels = ((values / step).round() + zero).clamp(0, 255)
    return (levels - zero) * step


class QuantizedInputs(TorchDispatchMode):
    """Within it, products with some weights have quantised inputs.

    A mode and no hooks, since attention of WavLM multiplies with the weights
    of its layers and never calls these layers.

    Arguments
    ---------
    weights : iterable of torch.Tensor
        Weights of linear layers.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self._places = {_place(weight) for weight in weights}

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Sequence[type],
        args: tuple = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator, on quantised input where it is such a product."""
        at = _INPUT.get(func)
        if at is not None and _place(args[at + 1]) in self._places:
            given = quantize_input(args[at])
            args = (*args[:at], given, *args[at + 1 :])
        return func(*args, **(kwargs or {}))


def quantized_inputs(
    model: FoldedModel, types: Mapping[str, str]
) -> contextlib.AbstractContextManager:
    """Return within what a model computes as a bundle does.

    Arguments
    ---------
    model : FoldedModel
        From `round_model`.
    types : mapping of str to str
        Of `choose_types`.

    Returns
    -------
    context manager
        That does nothing where no weight is "int8".
    """
    state = model.encoder.model.state_dict()
    weights = [state[name] for name, kind in types.items() if kind == "int8"]
    return QuantizedInputs(weights) if weights else contextlib.nullcontext()


def _place(tensor: Tensor) -> int:
    """Return where a tensor's memory is, which its transposed shares."""
    return tensor.untyped_storage().data_ptr()
