"""What a method takes over from another method's subnetwork.

A fine-tuned model's weights, to prune them; a mask, to go on from it. Refuses
what was made for another encoder. Must not change anything.
"""

import os
from collections.abc import Sequence

from torch import Tensor, nn

from s3router.errors import MismatchError, SettingError
from s3router.formats.fingerprint import fingerprint
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.exchange import as_tensor
from s3router.masks.targets import find_blocks


def load_start(path: str | os.PathLike, encoder: nn.Module) -> Subnetwork:
    """Return a subnetwork of this very encoder.

    Arguments
    ---------
    path : str or path
        The folder of a subnetwork.
    encoder : torch.nn.Module
        The Hugging Face model as it was loaded, without masks.

    Returns
    -------
    Subnetwork
        As it was saved.

    Raises
    ------
    NotFoundError, FormatError
        If there is none, or it is damaged.
    MismatchError
        If it was made for another encoder.
    """
    loaded = Subnetwork.load(path)
    names = [n for block in find_blocks(encoder) for n in block.linears("all")]
    ours = fingerprint(
        {
            name: encoder.get_submodule(name).weight.detach().cpu().numpy()
            for name in names
        }
    )
    loaded.check_encoder(ours, f"the encoder that {path} is to start")
    return loaded


def start_weights(
    start: Subnetwork, encoder: nn.Module, names: Sequence[str]
) -> dict[str, Tensor]:
    """Return the weights of some layers as a subnetwork leaves them.

    Arguments
    ---------
    start : Subnetwork
        Its tuned weights, or the encoder's own where it has none, times its
        masks, where it has some.
    encoder : torch.nn.Module
        The one that it was made for.
    names : sequence of str
        Linear layers.

    Returns
    -------
    dict
        By layer: float32 `(out, in)`, on the CPU.
    """
    found = {}
    for name in names:
        tuned = start.weights.get(f"{name}.weight")
        if tuned is None:
            weight = encoder.get_submodule(name).weight.detach().float().cpu()
        else:
            weight = as_tensor(tuned)
        if name in start.masks:
            weight = weight * as_tensor(start.masks[name])
        found[name] = weight
    return found


def start_masks(
    start: Subnetwork, names: Sequence[str], path: str | os.PathLike
) -> dict[str, Tensor]:
    """Return the masks of some layers, all of which must have one.

    Arguments
    ---------
    start : Subnetwork
        Of this encoder.
    names : sequence of str
        Linear layers.
    path : str or path
        Where it came from, for messages.

    Returns
    -------
    dict
        By layer: bool `(out, in)`.

    Raises
    ------
    SettingError
        If it has no masks at all.
    MismatchError
        If it masks other targets.
    """
    if not start.masks:
        raise SettingError(
            f"start_mask: the subnetwork {path} has no mask; it was made by "
            f"{start.config.get('method')!r}"
        )
    if missing := [name for name in names if name not in start.masks]:
        raise MismatchError(
            f"start_mask: {path} masks other targets: it has no mask of "
            f"{missing[0]} ({len(missing)} of {len(names)} are missing); its "
            f"targets are {start.config.get('targets')!r}"
        )
    return {name: as_tensor(start.masks[name]) for name in names}
