"""LoRA: low-rank additions to frozen weights; a baseline of equal bytes.

Source: Hu et al. (ICLR 2022). ``W + alpha / rank * B A``, of which only A and
B train; peft computes it. What is saved are the merged weights under the
encoder's own names, so export and runtime need neither peft nor adapters.
peft is optional (extra `lora`) and imported only where it is used.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from s3router.errors import (
    MismatchError,
    MissingDependencyError,
    SettingError,
)
from s3router.masks.targets import resolve_targets
from s3router.methods.base import Method, freeze

_ADAPTER = "default"
_FACTORS = ("lora_A", "lora_B")


class LoRA(Method):
    """Train low-rank additions to the targets; all else stays frozen.

    The factors are the group `weights`, so that a YAML's `lr_weights` is
    their rate.

    Arguments
    ---------
    targets : str or list of str
        Which linear layers get adapters; as for masks.
    lora_rank : int, optional
        Columns of B and rows of A; None takes `equal_bytes_rank`.
    lora_alpha : float, optional
        The addition is scaled by alpha / rank; None takes the rank, so that
        it is not scaled.
    seed : int
        Seed of A; B starts at zero.
    """

    name = "lora"
    changes_weights = True

    def __init__(
        self,
        targets: str | Sequence[str] = "feed_forward",
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        seed: int = 0,
    ):
        if lora_rank is not None and not lora_rank >= 1:
            raise SettingError(f"lora_rank is {lora_rank}, but must be 1 or up")
        if lora_alpha is not None and not lora_alpha > 0:
            raise SettingError(
                f"lora_alpha is {lora_alpha}, but must be above 0"
            )
        self.targets = targets
        self.rank = lora_rank
        self.alpha = lora_alpha
        self.seed = seed
        self._layers: dict[str, nn.Module] = {}

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder and put adapters on its targets.

        Arguments
        ---------
        encoder : torch.nn.Module
            The Hugging Face model. Its targets become peft layers, so take
            the encoder's fingerprint before.

        Raises
        ------
        MissingDependencyError
            If peft is not installed.
        SettingError
            If adapters would have no effect on a target, or there are
            some already.
        """
        config, inject = _peft()
        names = resolve_targets(encoder, self.targets)
        for name in names:
            _check(encoder, name)
        if self.rank is None:
            self.rank = equal_bytes_rank(encoder, self.targets)
        if self.alpha is None:
            self.alpha = self.rank
        freeze(encoder)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            inject(
                config(
                    r=self.rank,
                    lora_alpha=self.alpha,
                    target_modules=names,
                    lora_dropout=0.0,
                    bias="none",
                ),
                encoder,
                _ADAPTER,
            )
        self._layers = {name: encoder.get_submodule(name) for name in names}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return A and B of all layers as the one group `weights`."""
        return {"weights": [factor for _, factor in self._factors()]}

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return the merged weight of every target by its original name."""
        return {
            f"{name}.weight": layer.get_base_layer().weight
            + layer.get_delta_weight(_ADAPTER)
            for name, layer in self._layers.items()
        }

    def stored_bytes(self) -> int:
        """Return what A and B take in fp16; 0 before `prepare`."""
        return 2 * sum(factor.numel() for _, factor in self._factors())

    def describe(self) -> dict:
        """Return method, targets, rank, alpha, and bytes of A and B."""
        return {
            "method": self.name,
            "targets": self.targets,
            "lora_rank": self.rank,
            "lora_alpha": self.alpha,
            "lora_bytes": self.stored_bytes(),
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return A and B, by layer."""
        return {name: factor.detach() for name, factor in self._factors()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore A and B; names and shapes must be the same."""
        own = {name: factor.shape for name, factor in self._factors()}
        given = {name: factor.shape for name, factor in state.items()}
        if own != given:
            odd = sorted(dict(own.items() ^ given.items()))
            raise MismatchError(
                f"the checkpoint's adapters are not these: {odd[0]} is "
                f"missing or of another shape ({len(odd)} such names)"
            )
        for name, factor in self._factors():
            factor.copy_(state[name])

    def _factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, layer in self._layers.items():
            for factor in _FACTORS:
                linear = getattr(layer, factor)[_ADAPTER]
                yield f"{name}.{factor}", linear.weight


def equal_bytes_rank(encoder: nn.Module, targets: str | Sequence[str]) -> int:
    """Return the smallest rank whose factors are no smaller than a mask.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model.
    targets : str or sequence of str
        The linear layers that mask and adapters are on.

    Returns
    -------
    int
        A and B in fp16, 2 bytes for each of rank * (inputs + outputs)
        values, then take as many bytes as a mask of 1 bit per weight, or
        somewhat more.

    Example
    -------
    >>> layer = nn.TransformerEncoderLayer(320, 4, 1280)
    >>> encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    >>> equal_bytes_rank(encoder, "all")  # 102,400 / (2 * 3,200)
    16
    """
    mask_bytes, rank_bytes = 0, 0
    for name in resolve_targets(encoder, targets):
        rows, columns = encoder.get_submodule(name).weight.shape
        mask_bytes += math.ceil(rows * columns / 8)
        rank_bytes += 2 * (rows + columns)
    return math.ceil(mask_bytes / rank_bytes)


def _peft() -> tuple:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingDependencyError(
            "the method 'lora' needs peft: pip install 's3router[lora]'"
        ) from None
    return LoraConfig, inject_adapter_in_model


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
