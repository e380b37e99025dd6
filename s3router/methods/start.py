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
from s3router.masks.ranking import Ranking
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


def ranked_start(
    path: str | os.PathLike,
    encoder: nn.Module,
    ranking: Ranking,
    sparsity: float | None = None,
) -> dict[str, Tensor]:
    """Return masks by the magnitude of another subnetwork's weights.

    These are its tuned weights, or the encoder's own where it has none, times
    its mask, if it has one: what it removed stays removed.

    Arguments
    ---------
    path : str or path
        The folder of the subnetwork.
    encoder : torch.nn.Module
        As it was loaded, without masks.
    ranking : Ranking
        Its targets and its pattern.
    sparsity : float, optional
        Instead of the ranking's.

    Returns
    -------
    dict
        By target: bool `(out, in)`, True where kept.

    Raises
    ------
    NotFoundError, FormatError
        If there is no such subnetwork, or it is damaged.
    MismatchError
        If it was made for another encoder, or masks only some of the targets.
    SettingError
        If it is sparser than what is asked for, so that something would have
        to come back and nothing says what.
    """
    start = load_start(path, encoder)
    masked = any(name in start.masks for name in ranking.targets)
    if masked:
        _check_targets(start, ranking.targets, path)
    elif not any(f"{name}.weight" in start.weights for name in ranking.targets):
        raise SettingError(
            f"start_mask: {path} has neither weights nor masks of the targets "
            f"of its own; it was made by {start.config.get('method')!r}. "
            "Leave start_mask out to rank the weights before training"
        )
    masks = ranking.masks(
        {
            name: _effective_weight(start, encoder, name)
            for name in ranking.targets
        },
        sparsity,
    )
    back = sum(
        int((mask & ~as_tensor(start.masks[name])).sum())
        for name, mask in masks.items()
        if masked
    )
    if back and ranking.pattern.kind == "unstructured":
        raise SettingError(
            f"start_mask: {path} removes more than is asked for, so that "
            f"{back} weights would have to come back by chance; ask for a "
            "sparsity of at least "
            f"{start.config.get('measured_sparsity', 'its own')}"
        )
    return masks


def _effective_weight(
    start: Subnetwork, encoder: nn.Module, name: str
) -> Tensor:
    tuned = start.weights.get(f"{name}.weight")
    if tuned is None:
        weight = encoder.get_submodule(name).weight.detach().float().cpu()
    else:
        weight = as_tensor(tuned)
    if name in start.masks:
        weight = weight * as_tensor(start.masks[name])
    return weight


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
    # Masks of the front end's channels are of conv layers, and no method's.
    if not any(mask.ndim == 2 for mask in start.masks.values()):
        raise SettingError(
            f"start_mask: the subnetwork {path} has no mask; it was made by "
            f"{start.config.get('method')!r}"
        )
    _check_targets(start, names, path)
    return {name: as_tensor(start.masks[name]) for name in names}


def _check_targets(
    start: Subnetwork, names: Sequence[str], path: str | os.PathLike
) -> None:
    if missing := [name for name in names if name not in start.masks]:
        raise MismatchError(
            f"start_mask: {path} masks other targets: it has no mask of "
            f"{missing[0]} ({len(missing)} of {len(names)} are missing); its "
            f"targets are {start.config.get('targets')!r}"
        )
