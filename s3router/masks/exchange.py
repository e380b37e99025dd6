"""Check tensors that come from elsewhere against those that they replace.

Must not change anything: all checks come before the first write.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from s3router.errors import MismatchError, near


def as_tensor(value: Tensor | np.ndarray) -> Tensor:
    """Return a tensor; numpy arrays may be read-only and are then copied."""
    if isinstance(value, np.ndarray):
        value = value if value.flags.writeable else value.copy()
        return torch.from_numpy(value)
    return value


def check_like(
    new: Mapping[str, Tensor], live: Mapping[str, Tensor], what: str
) -> None:
    """Raise unless two sets of tensors have the same names and forms.

    Arguments
    ---------
    new : mapping
        Name to tensor, as given.
    live : mapping
        Name to tensor, as it must be.
    what : str
        What they are, for the message.

    Raises
    ------
    MismatchError
        If a name is missing or unknown, or a shape or dtype differs; the
        text names the first such tensor and both values.

    Example
    -------
    >>> check_like({"a": torch.ones(2)}, {"a": torch.ones(3)}, "mask")
    Traceback (most recent call last):
    ...
    s3router.errors.MismatchError: mask 'a' is float32 of shape (2,), \
here it must be float32 of shape (3,)
    """
    for name in new:
        if name not in live:
            raise MismatchError(
                f"{what} {name!r} has no place here: {near(name, live)}"
                f"there are {len(live)}, as {next(iter(live), None)!r}"
            )
    for name, tensor in live.items():
        if name not in new:
            raise MismatchError(
                f"{what} {name!r} is missing: {len(new)} of {len(live)} given"
            )
        check_form(name, new[name], tensor.shape, tensor.dtype, what)


def check_form(
    name: str, given: Tensor, shape: torch.Size, dtype: torch.dtype, what: str
) -> None:
    """Raise MismatchError unless a tensor has this shape and dtype."""
    if given.shape != shape or given.dtype != dtype:
        raise MismatchError(
            f"{what} {name!r} is {_form(given.shape, given.dtype)}, here it "
            f"must be {_form(shape, dtype)}"
        )


def _form(shape: torch.Size, dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    return f"{kind} of shape {tuple(shape)}"
