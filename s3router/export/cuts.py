"""What masks remove whole: attention heads, feed-forward and conv channels.

Read from the masks themselves, whatever the method that made them says. A
channel is gone where its row before and its column after are both removed;
then neither what its row gives nor its bias meets anything, and both can be
left out of the arrays. The numbers stay those of the masked encoder.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from s3router.errors import SettingError
from s3router.masks.front_end import has_norm_per_channel
from s3router.masks.targets import Block, find_blocks

#: What the manifest calls a language whose graph is smaller.
STRUCTURED = "structured"
_BEFORE = ("q", "k", "v")


@dataclass
class Cuts:
    """Which rows and columns of an encoder's arrays are kept.

    Arguments
    ---------
    heads : list of np.ndarray
        For each transformer block, int64 indices of its kept heads.
    channels : list of np.ndarray
        For each block, int64 indices of its kept feed-forward channels.
    front_end : list of np.ndarray
        For each conv layer but the last, int64 indices of its kept channels;
        empty where no mask acts on them.
    indices : dict
        Name of a cut to the kept indices, int64; all of at least one.
    axes : dict
        Name of an encoder's parameter to {axis: name of the cut}.
    gone : dict
        Name of a part of which nothing is kept to the layer whose bias is all
        that it gives.
    whole : dict
        Name of a parameter in `axes` to its shape before.

    Example
    -------
    >>> cuts = Cuts(indices={"c": np.array([0, 2])}, axes={"w": {1: "c"}})
    >>> cuts.take("w", np.array([[1, 2, 3]]))
    array([[1, 3]])
    """

    heads: list[np.ndarray] = field(default_factory=list)
    channels: list[np.ndarray] = field(default_factory=list)
    front_end: list[np.ndarray] = field(default_factory=list)
    indices: dict[str, np.ndarray] = field(default_factory=dict)
    axes: dict[str, dict[int, str]] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    whole: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.axes or self.gone)

    def take(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return what is kept of a parameter, or of a mask on it.

        Arguments
        ---------
        name : str
            The parameter, relative to the encoder.
        array : np.ndarray
            Of its whole shape.

        Returns
        -------
        np.ndarray
            The smaller array; `array` itself where nothing is cut.
        """
        for axis, cut in self.axes.get(name, {}).items():
            array = array.take(self.indices[cut], axis)
        return array

    def widen(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return a kept part in its whole shape, with zeros around.

        Arguments
        ---------
        name : str
            The parameter.
        array : np.ndarray
            As from `take`; one of another shape comes back as it is.

        Returns
        -------
        np.ndarray
            Of the parameter's whole shape.
        """
        if name not in self.axes:
            return array
        shape, cuts = self.whole[name], self.axes[name]
        kept = [
            self.indices[cuts[axis]] if axis in cuts else np.arange(size)
            for axis, size in enumerate(shape)
        ]
        if array.shape != tuple(map(len, kept)):
            return array
        wide = np.zeros(shape, array.dtype)
        wide[np.ix_(*kept)] = array
        return wide

    def rest(self, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what masks remove beside that which is cut.

        Arguments
        ---------
        masks : mapping of str to np.ndarray
            By layer, of whole shape.

        Returns
        -------
        dict
            By layer, of the smaller shape; without masks that keep all of it.
        """
        small = {
            owner: self.take(f"{owner}.weight", mask)
            for owner, mask in masks.items()
            if not self.without(owner)
        }
        return {k: mask for k, mask in small.items() if not mask.all()}

    def without(self, owner: str) -> bool:
        """Return whether nothing is kept of a layer but maybe its bias.

        Arguments
        ---------
        owner : str
            The layer, relative to the encoder.

        Returns
        -------
        bool
            Whether it lies in a part that is gone.
        """
        return any(owner.startswith(f"{part}.") for part in self.gone)

    def share(self, model: nn.Module) -> float:
        """Return how much of the weights goes, of 1.

        Arguments
        ---------
        model : torch.nn.Module
            That the cuts were found in.

        Returns
        -------
        float
            Of the linear layers of the transformer or of the convs of the
            front end, whichever loses more.
        """
        linears = [n for b in find_blocks(model) for n in b.linears("all")]
        return max(self._lost(model, n) for n in (linears, _convs(model)))

    def _lost(self, model: nn.Module, owners: list[str]) -> float:
        """Return the share of the weights of some layers that goes."""
        whole = kept = 0
        for owner in owners:
            name = f"{owner}.weight"
            shape = list(model.get_submodule(owner).weight.shape)
            whole += math.prod(shape)
            for axis, cut in self.axes.get(name, {}).items():
                shape[axis] = len(self.indices[cut])
            kept += 0 if self.without(owner) else math.prod(shape)
        return 1 - kept / whole if whole else 0.0

    def describe(self) -> dict[str, object]:
        """Return what a bundle's manifest says of it, ready for JSON."""
        if not self:
            return {}
        counts = {
            "heads_kept": self.heads,
            "channels_kept": self.channels,
            "front_end_kept": self.front_end,
        }
        return {
            "form": STRUCTURED,
            **{key: [len(k) for k in kept] for key, kept in counts.items()},
        }


def find_cuts(model: nn.Module, masks: Mapping[str, np.ndarray]) -> Cuts:
    """Find what masks remove whole.

    Arguments
    ---------
    model : torch.nn.Module
        The Hugging Face model of the encoder, of whole shape.
    masks : mapping of str to np.ndarray
        By layer: bool, of the shape of its weight, True where kept. A layer
        without a mask is kept.

    Returns
    -------
    Cuts
        False where there is nothing to cut.

    Raises
    ------
    SettingError
        If a conv layer of the front end has no channel left.
    """
    cuts = Cuts()
    for block in find_blocks(model):
        if block.attention:
            _cut_heads(cuts, block, model, masks)
        _cut_channels(cuts, block, model, masks)
    _cut_front_end(cuts, model, masks)
    return cuts


def _cut_heads(
    cuts: Cuts,
    block: Block,
    model: nn.Module,
    masks: Mapping[str, np.ndarray],
) -> None:
    owners, number = block.attention, block.num_heads
    used = _rows(masks.get(owners["out"]), 1, number)
    for role in _BEFORE:
        used = used | _rows(masks.get(owners[role]), 0, number)
    heads = np.flatnonzero(used)
    cuts.heads.append(heads)
    width = model.get_submodule(owners["q"]).out_features // number
    rows = (heads[:, None] * width + np.arange(width)).reshape(-1)
    part = f"{block.prefix}.attention"
    if len(heads) == 0:
        cuts.gone[part] = owners["out"]
    elif len(heads) < number:
        before = [owners[role] for role in _BEFORE]
        _cut(cuts, model, f"{part}.heads", rows, before, owners["out"])


def _cut_channels(
    cuts: Cuts,
    block: Block,
    model: nn.Module,
    masks: Mapping[str, np.ndarray],
) -> None:
    before, after = block.feed_forward["fc1"], block.feed_forward["fc2"]
    number = model.get_submodule(before).out_features
    used = _rows(masks.get(before), 0, number)
    used = used | _rows(masks.get(after), 1, number)
    channels = np.flatnonzero(used)
    cuts.channels.append(channels)
    part = f"{block.prefix}.feed_forward"
    if len(channels) == 0:
        cuts.gone[part] = after
    elif len(channels) < number:
        _cut(cuts, model, f"{part}.channels", channels, [before], after)


def _cut_front_end(
    cuts: Cuts, model: nn.Module, masks: Mapping[str, np.ndarray]
) -> None:
    """Cut the channels between convs, where none of their norms mixes them."""
    convs = _convs(model)
    if not any(conv in masks for conv in convs):
        return
    layers = model.feature_extractor.conv_layers
    names = [conv.removesuffix(".conv") for conv in convs]
    for i, (layer, name) in enumerate(zip(layers[:-1], names, strict=False)):
        number, after = layer.conv.out_channels, f"{names[i + 1]}.conv"
        used = _rows(masks.get(f"{name}.conv"), 0, number)
        used = used | _rows(masks.get(after), 1, number)
        if not has_norm_per_channel(layer):
            used = np.ones(number, np.bool_)
        channels = np.flatnonzero(used)
        cuts.front_end.append(channels)
        if len(channels) == 0:
            raise SettingError(
                f"the masks remove every channel of {name}.conv, so that "
                "nothing of the audio is left: keep at least one"
            )
        if len(channels) < number:
            norm = [f"{name}.layer_norm"] * hasattr(layer, "layer_norm")
            before = [f"{name}.conv", *norm]
            _cut(cuts, model, f"{name}.channels", channels, before, after)


def _convs(model: nn.Module) -> list[str]:
    """Return the conv layers of the front end, first to last."""
    extractor = getattr(model, "feature_extractor", None)
    number = len(getattr(extractor, "conv_layers", []))
    return [f"feature_extractor.conv_layers.{i}.conv" for i in range(number)]


def _rows(mask: np.ndarray | None, axis: int, groups: int) -> np.ndarray:
    """Return for each group of rows (or columns) whether any is kept."""
    if mask is None:
        return np.ones(groups, np.bool_)
    others = tuple(i for i in range(mask.ndim) if i != axis)
    return mask.any(axis=others).reshape(groups, -1).any(1)


def _cut(
    cuts: Cuts,
    model: nn.Module,
    cut: str,
    kept: np.ndarray,
    before: list[str],
    after: str,
) -> None:
    """Note a cut: rows of the layers before, columns of the one after."""
    cuts.indices[cut] = kept
    for owner in before:
        for name, value in model.get_submodule(owner).named_parameters():
            _note(cuts, f"{owner}.{name}", 0, cut, value.shape)
    weight = model.get_submodule(after).weight
    _note(cuts, f"{after}.weight", 1, cut, weight.shape)


def _note(
    cuts: Cuts, name: str, axis: int, cut: str, shape: tuple[int, ...]
) -> None:
    cuts.axes.setdefault(name, {})[axis] = cut
    cuts.whole[name] = tuple(shape)
