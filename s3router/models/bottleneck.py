"""Bottleneck adapters: small networks behind each transformer block.

    y = b(x) + W_up relu(W_down norm(b(x)))

for a block b, as in the adapters of MMS (Pratap et al., 2023, section 5.3:
norm, down, ReLU, up): they read and write the stream that goes on to the next
block. W_up starts at zero, so the encoder starts as it is. Must not decide
what trains.
"""

from typing import Any

import torch
from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.masks.targets import find_blocks

_NAME = "bottleneck"


class Bottleneck(nn.Module):
    """Norm, down, ReLU, up.

    Arguments
    ---------
    width : int
        Of the encoder.
    inner : int
        Of the bottleneck.

    Example
    -------
    >>> adapter = Bottleneck(8, 2)
    >>> adapter(torch.randn(1, 3, 8)).abs().sum().item()
    0.0
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, inner)
        self.up = nn.Linear(inner, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what is added to (batch, time, width)."""
        return self.up(torch.relu(self.down(self.norm(hidden))))


def _add(block: nn.Module, _: object, output: Any) -> Any:
    # By its owner, so that a copy of the encoder uses its own adapters.
    adapter = getattr(block, _NAME)
    if isinstance(output, tuple):  # with attention weights, or positions
        hidden, *others = output
        return (hidden + adapter(hidden), *others)
    return output + adapter(output)


def attach_bottlenecks(
    encoder: nn.Module, inner: int
) -> dict[str, nn.Parameter]:
    """Put an adapter behind every block.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model; its blocks get a submodule each.
    inner : int
        Width of the bottlenecks.

    Returns
    -------
    dict
        The adapters' parameters by name, as the encoder has them now.

    Raises
    ------
    SettingError
        If the encoder has no blocks of a known kind, or adapters already.
    """
    blocks = [block for block in find_blocks(encoder) if block.attention]
    if not blocks:
        raise SettingError(
            "adapters go behind transformer blocks in the Hugging Face "
            "format, and this encoder has none"
        )
    for block in blocks:
        owner = encoder.get_submodule(block.prefix)
        if hasattr(owner, _NAME):
            raise SettingError(
                f"{block.prefix} has an adapter already; load the encoder anew"
            )
        last = owner.feed_forward.output_dense
        adapter = Bottleneck(last.out_features, inner)
        owner.add_module(_NAME, adapter.to(last.weight))
        owner.register_forward_hook(_add)
    return {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if f".{_NAME}." in name
    }
