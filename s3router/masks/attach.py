"""Put masks on linear layers, and take them off.

A mask is a parametrization of the weight: whoever reads `layer.weight`, as
WavLM does, sees the masked one. The layer's own forward computes the same
without keeping weight x mask.
"""

from torch import nn
from torch.nn.utils import parametrize

from s3router.errors import SettingError
from s3router.masks.masked_linear import masked_forward
from s3router.masks.parametrization import MaskedWeight


def attach(linear: nn.Linear, name: str, mask: MaskedWeight) -> None:
    """Put a mask on the weight of a linear layer.

    Arguments
    ---------
    linear : torch.nn.Linear
        The layer; its weight stays as it is, under
        `parametrizations.weight.original`.
    name : str
        What the layer is called, for messages.
    mask : MaskedWeight
        The mask.

    Raises
    ------
    SettingError
        If the weight already has a parametrization: removing the mask later
        would remove that one too.
    """
    check_plain(linear, name)
    ordinary = type(linear).forward is nn.Linear.forward
    # Unsafe: no product of each weight is made and thrown away, only to see
    # that it has the shape of the weight. The holes would stay in memory.
    parametrize.register_parametrization(linear, "weight", mask, unsafe=True)
    if ordinary:
        # The class is the layer's own: torch made it, and undoes it.
        type(linear).forward = masked_forward


def check_plain(linear: nn.Module, name: str) -> None:
    """Raise SettingError if the weight already is parametrized."""
    if parametrize.is_parametrized(linear, "weight"):
        kinds = [type(p).__name__ for p in linear.parametrizations.weight]
        raise SettingError(
            f"{name}.weight already has a parametrization "
            f"({', '.join(kinds)}): remove or fold it before it gets a mask"
        )
    if not isinstance(getattr(linear, "weight", None), nn.Parameter):
        raise SettingError(f"{name} has no plain weight that could be masked")


def detach(linear: nn.Linear, fold: bool) -> None:
    """Take the mask off; the layer is a plain `torch.nn.Linear` again.

    Arguments
    ---------
    linear : torch.nn.Linear
        A layer with a mask.
    fold : bool
        True leaves weight x mask as the weight, False the weight unmasked.
    """
    parametrize.remove_parametrizations(
        linear, "weight", leave_parametrized=fold
    )
