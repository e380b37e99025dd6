"""Bottleneck adapters: small networks behind each feed-forward part.

    y = f(x) + W_up relu(W_down norm(f(x)))

for a feed-forward part f, as in the adapters of MMS (Pratap et al., 2023,
section 5.3: norm, down, ReLU, up) and the `st` adapters of S3-Router's code.
W_up starts at zero, so the encoder starts as it is. Must not decide what
trains.
"""

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


def _add(part: nn.Module, _: object, output: Tensor) -> Tensor:
    # By its owner, so that a copy of the encoder uses its own adapters.
    return output + getattr(part, _NAME)(output)


def attach_bottlenecks(
    encoder: nn.Module, inner: int
) -> dict[str, nn.Parameter]:
    """Put an adapter behind the feed-forward part of every block.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model; its feed-forward parts get a submodule each.
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
            "adapters go behind the feed-forward part of transformer blocks "
            "in the Hugging Face format, and this encoder has none"
        )
    for block in blocks:
        part = encoder.get_submodule(block.prefix).feed_forward
        if hasattr(part, _NAME):
            raise SettingError(
                f"{block.prefix} has an adapter already; load the encoder anew"
            )
        last = part.output_dense
        adapter = Bottleneck(last.out_features, inner)
        part.add_module(_NAME, adapter.to(last.weight))
        part.register_forward_hook(_add)
    return {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if f".{_NAME}." in name
    }
