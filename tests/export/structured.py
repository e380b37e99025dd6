"""Subnetworks that lack whole heads and channels, at random."""

from pathlib import Path

import numpy as np
from subnetworks import make_subnetwork

from s3router.formats.subnetwork import Subnetwork
from s3router.masks.targets import find_blocks
from s3router.models.encoder import load_encoder

CONV = "feature_extractor.conv_layers.{}.conv"


def structured_masks(
    encoder: Path,
    heads: list[int],
    channels: list[int],
    front_end: list[int] = (),
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return masks that keep so many, chosen at random, in each layer."""
    model, rng = load_encoder(str(encoder)).model, np.random.default_rng(seed)

    def kept(number: int, total: int) -> np.ndarray:
        keep = np.zeros(total, dtype=bool)
        keep[rng.permutation(total)[:number]] = True
        return keep

    masks = {
        name: np.ones(model.get_submodule(name).weight.shape, dtype=bool)
        for block in find_blocks(model)
        for name in block.linears("all")
    }
    for block, number, width in zip(
        find_blocks(model), heads, channels, strict=True
    ):
        q = masks[block.attention["q"]]
        rows = kept(number, block.num_heads)
        rows = rows.repeat(len(q) // block.num_heads)
        for role in "qkv":
            masks[block.attention[role]][~rows] = False
        masks[block.attention["out"]][:, ~rows] = False
        rows = kept(width, len(masks[block.feed_forward["fc1"]]))
        masks[block.feed_forward["fc1"]][~rows] = False
        masks[block.feed_forward["fc2"]][:, ~rows] = False
    for i, number in enumerate(front_end):
        for j in (i, i + 1):
            weight = model.get_submodule(CONV.format(j)).weight
            masks.setdefault(CONV.format(j), np.ones(weight.shape, dtype=bool))
        rows = kept(number, len(masks[CONV.format(i)]))
        masks[CONV.format(i)][~rows] = False
        masks[CONV.format(i + 1)][:, ~rows] = False
    return masks


def make_structured(
    folder: Path,
    encoder: Path,
    language: str,
    heads: list[int],
    channels: list[int],
    front_end: list[int] = (),
    seed: int = 0,
    extra: float = 0.0,
) -> Path:
    """Save a subnetwork that keeps so many, and lacks a share of the rest."""
    path = make_subnetwork(
        folder, encoder, language, seed=seed, pattern="structured"
    )
    made, rng = Subnetwork.load(path), np.random.default_rng(seed)
    made.masks = structured_masks(encoder, heads, channels, front_end, seed)
    for mask in made.masks.values():
        mask &= rng.random(mask.shape) >= extra
    return made.save(path)
