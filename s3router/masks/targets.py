"""Find the linear layers of an encoder that can be masked, by structure.

A transformer block is known by what it has, never by its name, so this works
for every wav2vec2-like model of transformers without importing it. All names
are relative to the encoder given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from s3router.errors import SettingError, near

#: role -> attribute, for the attention and the feed-forward part of a block.
_ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
_FEED_FORWARD = {"fc1": "intermediate_dense", "fc2": "output_dense"}
_TORCH_FEED_FORWARD = {"fc1": "linear1", "fc2": "linear2"}

KEYWORDS = ("feed_forward", "attention", "all")


@dataclass(frozen=True)
class Block:
    """The maskable linear layers of one transformer block.

    Arguments
    ---------
    index : int
        Which block of the encoder, from 0.
    prefix : str
        Name of the block's module.
    attention : dict
        Role (`q`, `k`, `v`, `out`) to name of the linear layer; empty where
        these are fused into one weight.
    feed_forward : dict
        Role (`fc1`, `fc2`) to name of the linear layer.
    num_heads : int
        Attention heads; head h owns rows `h * d` to `(h + 1) * d` of q, k
        and v and the same columns of out, with d = rows / num_heads.
    """

    index: int
    prefix: str
    attention: dict[str, str] = field(default_factory=dict)
    feed_forward: dict[str, str] = field(default_factory=dict)
    num_heads: int = 0

    def linears(self, part: str) -> list[str]:
        """Return the names of one part: attention, feed_forward or all."""
        attention = list(self.attention.values())
        feed_forward = list(self.feed_forward.values())
        return {
            "attention": attention,
            "feed_forward": feed_forward,
            "all": attention + feed_forward,
        }[part]


def find_blocks(encoder: nn.Module) -> list[Block]:
    """Return the transformer blocks of an encoder, in order of use.

    Known are the blocks of wav2vec2, XLS-R, HuBERT, WavLM, data2vec-audio and
    UniSpeech(-SAT) in transformers (`attention.q_proj` ... and
    `feed_forward.intermediate_dense`, `output_dense`), and
    `torch.nn.TransformerEncoderLayer`, whose q, k and v are one fused weight,
    so that only its feed-forward part is maskable.

    Arguments
    ---------
    encoder : torch.nn.Module
        Any module; masks may already be on it.

    Returns
    -------
    list of Block
        Empty if no known block was found.

    Example
    -------
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16)
    >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    >>> find_blocks(encoder)[1].feed_forward
    {'fc1': 'layers.1.linear1', 'fc2': 'layers.1.linear2'}
    """
    blocks: list[Block] = []
    for name, module in encoder.named_modules():
        if not isinstance(module, nn.ModuleList):
            continue
        for child, element in module.named_children():
            prefix = f"{name}.{child}" if name else child
            block = _as_block(len(blocks), prefix, element)
            if block is not None:
                blocks.append(block)
    return blocks


def _as_block(index: int, prefix: str, module: nn.Module) -> Block | None:
    if isinstance(module, nn.TransformerEncoderLayer):
        names = {r: f"{prefix}.{a}" for r, a in _TORCH_FEED_FORWARD.items()}
        return Block(index, prefix, feed_forward=names)
    attention = getattr(module, "attention", None)
    feed_forward = getattr(module, "feed_forward", None)
    if not (
        _has_linears(attention, _ATTENTION)
        and _has_linears(feed_forward, _FEED_FORWARD)
    ):
        return None
    return Block(
        index,
        prefix,
        {r: f"{prefix}.attention.{a}" for r, a in _ATTENTION.items()},
        {r: f"{prefix}.feed_forward.{a}" for r, a in _FEED_FORWARD.items()},
        int(attention.num_heads),
    )


def _has_linears(module: nn.Module | None, roles: dict[str, str]) -> bool:
    return module is not None and all(
        isinstance(getattr(module, attribute, None), nn.Linear)
        for attribute in roles.values()
    )


def resolve_targets(
    encoder: nn.Module, targets: str | Sequence[str]
) -> list[str]:
    """Return the names of the linear layers that are to be masked.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder.
    targets : str or sequence of str
        `feed_forward`, `attention`, `all`, or fnmatch patterns over the
        names of the linear layers in transformer blocks, as
        `encoder.layers.[0-5].*`. The exact name of any other linear layer is
        taken too, as `feature_projection.projection`. Several are joined.

    Returns
    -------
    list of str
        Names in the order of the encoder, each once.

    Raises
    ------
    SettingError
        If one of the targets matches nothing; the text lists near names.

    Example
    -------
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16)
    >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    >>> resolve_targets(encoder, "*.linear1")
    ['layers.0.linear1', 'layers.1.linear1']
    """
    wanted = target_names(targets)
    order = [n for n, m in encoder.named_modules() if _is_plain_linear(n, m)]
    blocks = find_blocks(encoder)
    chosen: set[str] = set()
    for item in wanted:
        matched = set(_matches(item, blocks, order))
        if not matched:
            raise SettingError(_nothing(item, blocks, order))
        chosen |= matched
    return [name for name in order if name in chosen]


def target_names(targets: object) -> list[str]:
    """Return targets as a list of names or patterns, or refuse them.

    Arguments
    ---------
    targets : object
        What was given as `targets`; see `resolve_targets`.

    Returns
    -------
    list of str
        One or more, not yet looked for in an encoder.

    Raises
    ------
    SettingError
        If they are not a text or a list of texts.

    Example
    -------
    >>> target_names("all")
    ['all']
    """
    names = [targets] if isinstance(targets, str) else targets
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) for name in names)
    ):
        raise SettingError(
            f"targets: {targets!r} is not a name or a list of names; use "
            f"{', '.join(KEYWORDS)}, or patterns on layer names"
        )
    return list(names)


def _is_plain_linear(name: str, module: nn.Module) -> bool:
    return bool(name) and isinstance(module, nn.Linear)


def _matches(
    item: str, blocks: list[Block], linears: list[str]
) -> Iterator[str]:
    if item in KEYWORDS:
        for block in blocks:
            yield from block.linears(item)
    elif item in linears:
        yield item
    else:
        inside = [name for block in blocks for name in block.linears("all")]
        yield from (n for n in inside or linears if fnmatchcase(n, item))


def _nothing(item: str, blocks: list[Block], linears: list[str]) -> str:
    start = f"targets: {item!r} matches no linear layer of the encoder"
    if not linears:
        return f"{start}: it has none at all"
    if item in KEYWORDS:
        return (
            f"{start}: no transformer block of a known kind was found; give "
            f"patterns on its {len(linears)} layer names, as {linears[0]!r}"
        )
    inside = [name for block in blocks for name in block.linears("all")]
    known = inside or linears
    hint = near(item, [*KEYWORDS, *known])
    return (
        f"{start}: {hint}Use {', '.join(KEYWORDS)}, or a pattern on names "
        f"such as {known[0]!r} and {known[-1]!r}"
    )
