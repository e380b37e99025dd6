"""Encoders, subnetworks and bundles that the benchmark of exports measures.

Weights and masks are random, with fixed seeds: time, memory and size do not ask
what a weight says. A variant is one line of `VARIANTS`.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from s3router.formats.files import atomic_folder
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.targets import find_blocks
from s3router.models.encoder import load_encoder
from s3router.runtime.session import MODES

SHAPES = {
    "wav2vec2-base": {},
    "xlsr-300m": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "conv_bias": True,
    },
    "small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
}
VOCABULARY = 32
LANGUAGES = ("aa", "bb")
#: Of what one language removes, the share that an overlapping one removes.
COMMON = 0.95
_S3ROUTER = "import sys; from s3router.cli import main; sys.exit(main())"
_CONV = "feature_extractor.conv_layers.{}.conv"


@dataclass(frozen=True)
class Variant:
    """A bundle to make and measure.

    Arguments
    ---------
    name : str
        For tables and files.
    masks : str
        What is removed: `all` or `feed_forward` (weights of these linear
        layers), `overlapping` (of all; the languages have 95% of it in
        common), `structured` (heads and channels), `front_end` (the channels
        of the convolutions as well).
    sparsity : float
        The share of it that is removed.
    options : tuple of str
        Of `s3router export`. Where it refuses them, the row says so.
    modes : tuple of str
        How weights are held. Empty: only sizes are of interest.
    """

    name: str
    masks: str
    sparsity: float
    options: tuple[str, ...]
    modes: tuple[str, ...] = ("fold",)

    @property
    def languages(self) -> tuple[str, ...]:
        """Return the languages of the bundle."""
        shared = "--layout=shared" in self.options
        return LANGUAGES if shared else LANGUAGES[:1]


_SHARED, _ALONE = "--layout=shared", "--layout=standalone"
_BOTH = ("fold", "lean")
VARIANTS = (
    Variant("shared", "all", 0.5, (_SHARED,), MODES),
    Variant("shared_10", "all", 0.1, (_SHARED,), ()),
    Variant("shared_overlap", "overlapping", 0.1, (_SHARED,), ()),
    Variant("shared_feed_forward", "feed_forward", 0.5, (_SHARED,), ()),
    Variant("shared_structured", "structured", 0.5, (_SHARED,)),
    Variant("shared_front_end", "front_end", 0.5, (_SHARED,)),
    Variant("standalone_50", "all", 0.5, (_ALONE,)),
    Variant("standalone_90", "all", 0.9, (_ALONE,)),
    Variant("standalone_structured", "structured", 0.5, (_ALONE,)),
    Variant("sparse_90", "all", 0.9, (_ALONE, "--encoding=sparse")),
    Variant("fp16", "all", 0.5, (_SHARED, "--precision=fp16"), _BOTH),
    Variant("int8", "all", 0.5, (_SHARED, "--precision=int8"), _BOTH),
    Variant(
        "int8_structured", "structured", 0.5, (_SHARED, "--precision=int8")
    ),
    Variant("fp16_standalone", "all", 0.5, (_ALONE, "--precision=fp16")),
    Variant("int8_standalone", "all", 0.5, (_ALONE, "--precision=int8")),
)


class NotAvailable(Exception):
    """The export of this version refuses what a variant asks for."""


def make_encoder(shape: str, folder: Path) -> Path:
    """Save a random encoder.

    Arguments
    ---------
    shape : str
        Of `SHAPES`.
    folder : pathlib.Path
        Where to save it; one that is there stays.

    Returns
    -------
    pathlib.Path
        `folder`.
    """
    if folder.exists():
        return folder
    torch.manual_seed(0)
    model = Wav2Vec2Model(Wav2Vec2Config(**SHAPES[shape]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                # Biases and norms that are all alike would be stored once.
                parameter.add_(0.1 * torch.randn_like(parameter))
    settings = '{"do_normalize": true, "sampling_rate": 16000}'
    # Whole or not at all, or a later run would take half an encoder.
    with atomic_folder(folder) as made:
        model.save_pretrained(made)
        (made / "preprocessor_config.json").write_text(settings)
    return folder


def make_masks(
    model: nn.Module, kind: str, sparsity: float, seed: int
) -> dict[str, np.ndarray]:
    """Return random masks.

    Arguments
    ---------
    model : torch.nn.Module
        The Hugging Face model of an encoder.
    kind : str
        As `Variant.masks`.
    sparsity : float
        Share removed.
    seed : int
        Another seed, other masks.

    Returns
    -------
    dict
        By layer: bool, of the weight's shape, True where kept.
    """
    rng = np.random.default_rng(seed)
    if kind == "overlapping":
        masks = make_masks(model, "all", sparsity, 0)
        return {k: _change(m, rng) for k, m in masks.items()} if seed else masks
    if kind in ("all", "feed_forward"):
        return {
            name: rng.random(_shape(model, name), np.float32) >= sparsity
            for block in find_blocks(model)
            for name in block.linears(kind)
        }
    masks: dict[str, np.ndarray] = {}

    def remove(total: int, before: Sequence[str], after: Sequence[str]) -> None:
        gone = rng.permutation(total)[: round(sparsity * total)]
        for name in (*before, *after):
            masks.setdefault(name, np.ones(_shape(model, name), dtype=bool))
        for name in before:
            mask = masks[name]
            mask.reshape(total, -1)[gone] = False
        for name in after:
            rows, mask = len(masks[name]), masks[name]
            mask.reshape(rows, total, -1)[:, gone] = False

    for block in find_blocks(model):
        part = block.attention
        remove(block.num_heads, [part[r] for r in "qkv"], [part["out"]])
        fc1, fc2 = (block.feed_forward[role] for role in ("fc1", "fc2"))
        remove(_shape(model, fc1)[0], [fc1], [fc2])
    if kind == "front_end":
        for index, width in enumerate(model.config.conv_dim[:-1]):
            names = _CONV.format(index), _CONV.format(index + 1)
            remove(width, names[:1], names[1:])
    return masks


def _change(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a mask that removes other weights, but for the common share."""
    removed, kept = np.flatnonzero(~mask), np.flatnonzero(mask)
    count = round((1 - COMMON) * len(removed))
    flat = mask.reshape(-1).copy()
    flat[rng.choice(removed, count, replace=False)] = True
    flat[rng.choice(kept, count, replace=False)] = False
    return flat.reshape(mask.shape)


def make_subnetworks(
    variant: Variant, encoder: Path, folder: Path
) -> list[Path]:
    """Save the random subnetworks of a variant.

    Arguments
    ---------
    variant : Variant
        What is wanted.
    encoder : pathlib.Path
        Of `make_encoder`.
    folder : pathlib.Path
        Where to save them.

    Returns
    -------
    list of pathlib.Path
        One for each language.
    """
    loaded, paths = load_encoder(str(encoder)), []
    tokens = ["<blk>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz'-,"]
    for seed, language in enumerate(variant.languages):
        rng = np.random.default_rng(seed)
        shape = (VOCABULARY, loaded.hidden_size)
        head = {
            "weight": rng.standard_normal(shape, np.float32) / 10,
            "bias": rng.standard_normal(VOCABULARY, np.float32),
        }
        config = {
            "method": "random",
            "language": language,
            "task": "ctc",
            "encoder": str(encoder),
            "fingerprint": loaded.fingerprint(),
            "sample_rate": 16000,
            "normalize": True,
        }
        masks = make_masks(loaded.model, variant.masks, variant.sparsity, seed)
        made = Subnetwork(config, masks, head, tokens)
        paths.append(made.save(folder / language))
    return paths


def make_variant(variant: Variant, encoder: Path, folder: Path) -> Path:
    """Export the bundle of a variant, with the command that users have.

    Arguments
    ---------
    variant : Variant
        What is wanted.
    encoder : pathlib.Path
        Of `make_encoder`.
    folder : pathlib.Path
        Of this variant; a bundle that is there stays.

    Returns
    -------
    pathlib.Path
        The bundle.

    Raises
    ------
    NotAvailable
        If the command refuses; the text is its own.
    """
    bundle = folder / "bundle"
    if bundle.exists():
        return bundle
    paths = make_subnetworks(variant, encoder, folder)
    run_command("export", *paths, f"--output={bundle}", *variant.options)
    return bundle


def run_command(*arguments: object) -> str:
    """Run `s3router`, and return what it prints.

    Arguments
    ---------
    *arguments : object
        As typed.

    Returns
    -------
    str
        Its stdout.

    Raises
    ------
    NotAvailable
        If it refuses; the text is its last line.
    """
    done = subprocess.run(
        [sys.executable, "-c", _S3ROUTER, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise NotAvailable(lines[-1].split("error: ", 1)[-1])
    return done.stdout


def _shape(model: nn.Module, name: str) -> tuple[int, ...]:
    return tuple(model.get_submodule(name).weight.shape)
