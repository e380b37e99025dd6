"""What methods have in common whose layers peft computes.

Layers of the frozen encoder become peft's; what trains is the group `weights`.
What is saved are plain weights under the encoder's own names, so export and
runtime need neither peft nor adapters. peft is optional (extra `lora`) and
imported only where it is used.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from s3router.errors import (
    MismatchError,
    MissingDependencyError,
    SettingError,
)
from s3router.methods.base import Method, freeze

ADAPTER = "default"


class PeftMethod(Method):
    """Train small factors beside frozen linear layers."""

    changes_weights = True

    def __init__(self) -> None:
        self._layers: dict[str, nn.Module] = {}

    @abstractmethod
    def factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and tensor of all that trains."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all factors as the one group `weights`."""
        return {"weights": [factor for _, factor in self.factors()]}

    def stored_bytes(self) -> int:
        """Return what the factors take in fp16; 0 before `prepare`."""
        return 2 * sum(factor.numel() for _, factor in self.factors())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the factors, by layer."""
        return {name: factor.detach() for name, factor in self.factors()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the factors; names and shapes must be the same."""
        own = {name: factor.shape for name, factor in self.factors()}
        given = {name: factor.shape for name, factor in state.items()}
        if own != given:
            odd = sorted(dict(own.items() ^ given.items()))
            raise MismatchError(
                f"the checkpoint's adapters are not these: {odd[0]} is "
                f"missing or of another shape ({len(odd)} such names)"
            )
        for name, factor in self.factors():
            factor.copy_(state[name])

    def inject(
        self, encoder: nn.Module, names: Sequence[str], config: Any
    ) -> None:
        """Freeze the encoder and put adapters on some of its layers.

        Arguments
        ---------
        encoder : torch.nn.Module
            The Hugging Face model.
        names : sequence of str
            Linear layers, which become peft's.
        config : object
            Of peft.
        """
        for name in names:
            _check(encoder, name)
        freeze(encoder)
        peft(self.name).inject_adapter_in_model(config, encoder, ADAPTER)
        self._layers = {name: encoder.get_submodule(name) for name in names}


def peft(method: str) -> ModuleType:
    """Return the library, or say how a method gets it.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingDependencyError(
            f"the method {method!r} needs peft: pip install 's3router[lora]'"
        ) from None
    return peft


def _check(encoder: nn.Module, name: str) -> None:
    """Refuse what an adapter on a layer could not change."""
    layer = encoder.get_submodule(name)
    if type(layer) is not nn.Linear:
        raise SettingError(
            f"{name} is a {type(layer).__name__}, adapters go on plain linear "
            f"layers only; load the encoder anew, without masks or adapters"
        )
    owner = encoder.get_submodule(name.rpartition(".")[0])
    # Both hand the weights of their layers to one fused function. By name, so
    # that transformers need not be imported; ours is a subclass.
    if type(owner).__name__ == "WavLMAttention":
        raise SettingError(
            f"transformers' WavLM reads the weight of {name} and never calls "
            f"the layer, so an adapter would do nothing; load the encoder "
            f"with s3router's load_encoder, or target feed_forward only"
        )
    if isinstance(owner, nn.TransformerEncoderLayer):
        raise SettingError(
            f"torch's TransformerEncoderLayer may read the weight of {name} "
            f"without calling the layer, so an adapter might do nothing; use "
            f"an encoder in the Hugging Face format"
        )
