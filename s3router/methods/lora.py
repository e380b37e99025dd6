"""LoRA: low-rank additions to frozen weights; a baseline of equal bytes.

Source: Hu et al. (ICLR 2022). ``W + alpha / rank * B A``, of which only A and
B train. Merged into the encoder's weights when saved.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from s3router.errors import positive_number, whole_number
from s3router.masks.targets import resolve_targets, target_names
from s3router.methods.peft_method import ADAPTER, PeftMethod, peft

_FACTORS = ("lora_A", "lora_B")


class LoRA(PeftMethod):
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

    def __init__(
        self,
        targets: str | Sequence[str] = "feed_forward",
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        target_names(targets)
        if lora_rank is not None:
            whole_number("lora_rank", lora_rank)
        if lora_alpha is not None:
            positive_number("lora_alpha", lora_alpha)
        self.targets = targets
        self.rank = lora_rank
        self.alpha = lora_alpha
        self.seed = whole_number("seed", seed, least=0)

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
        names = resolve_targets(encoder, self.targets)
        if self.rank is None:
            self.rank = equal_bytes_rank(encoder, self.targets)
        if self.alpha is None:
            self.alpha = self.rank
        config = peft(self.name).LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=names,
            lora_dropout=0.0,
            bias="none",
        )
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.inject(encoder, names, config)

    def factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield A and B of every layer."""
        for name, layer in self._layers.items():
            for factor in _FACTORS:
                linear = getattr(layer, factor)[ADAPTER]
                yield f"{name}.{factor}", linear.weight

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return the merged weight of every target by its original name."""
        return {
            f"{name}.weight": layer.get_base_layer().weight
            + layer.get_delta_weight(ADAPTER)
            for name, layer in self._layers.items()
        }

    def describe(self) -> dict:
        """Return method, targets, rank, alpha, and bytes of A and B."""
        return {
            "method": self.name,
            "targets": self.targets,
            "lora_rank": self.rank,
            "lora_alpha": self.alpha,
            "adapter_bytes": self.stored_bytes(),
            "seed": self.seed,
        }


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
