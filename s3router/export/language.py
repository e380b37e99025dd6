"""Writes one language of a bundle: its files, and what the manifest says."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from s3router import __version__
from s3router.export.fold import FoldedModel
from s3router.export.layouts import Shared, Standalone
from s3router.export.pooling import framewise, pool_frames
from s3router.export.probes import frame_hop
from s3router.export.profiles import (
    audio_wanted,
    client_files,
    client_graph,
    client_model,
    tokens_name,
)
from s3router.formats.bundle_language import BundleLanguage
from s3router.formats.files import sha256_file
from s3router.formats.subnetwork import CONFIG, Subnetwork
from s3router.formats.tokens_file import save_tokens

BLANK, UNKNOWN = "<blk>", "<unk>"


def write_language(
    writer: Standalone | Shared,
    folder: Path,
    code: str,
    path: Path,
    subnetwork: Subnetwork,
    model: FoldedModel,
    profile: str,
) -> BundleLanguage:
    """Write the files of one language.

    Arguments
    ---------
    writer : Standalone or Shared
        The layout of the bundle.
    folder : pathlib.Path
        The bundle.
    code : str
        Of the language.
    path : pathlib.Path
        Where the subnetwork is.
    subnetwork : Subnetwork
        The subnetwork.
    model : FoldedModel
        The encoder with the subnetwork folded into it.
    profile : str
        Whose contract the graph keeps.

    Returns
    -------
    BundleLanguage
        For the manifest.
    """
    tokens = subnetwork.tokens
    entry = _describe(path, subnetwork)
    normalize, _ = audio_wanted(profile, model.encoder.normalize_input)
    metadata = {
        "language": code,
        "s3router.version": __version__,
        "s3router.profile": profile,
        "sample_rate": str(model.encoder.sample_rate),
        "normalize": str(int(normalize)),
        "method": str(entry.method),
    }
    exported = framewise(client_model(profile, model, entry.blank))
    finish = partial(_finish_graph, profile, entry, tokens)
    files, tokens_file = writer.write(
        code, exported, subnetwork, metadata, finish
    )
    tokens_file = tokens_name(profile, tokens_file)
    save_tokens(folder / tokens_file, tokens)
    hop = frame_hop(model.encoder)
    further = client_files(profile, folder, files[0], hop)
    return replace(
        entry,
        model=files[0],
        tokens=tokens_file,
        files=[*files, tokens_file, *further],
        details={**entry.details, **writer.details},
    )


def _finish_graph(
    profile: str, entry: BundleLanguage, tokens: list[str], graph: Any
) -> None:
    """Make a graph of logits for each frame what a language or client wants."""
    if entry.task == "classification":
        pool_frames(graph)
    client_graph(profile, graph, entry, tokens)


def _describe(path: Path, subnetwork: Subnetwork) -> BundleLanguage:
    """Return what a subnetwork says of its language, without files."""
    config, tokens = subnetwork.config, subnetwork.tokens
    counts = subnetwork.sparsity_by_tensor().values()
    return BundleLanguage(
        model="",
        tokens="",
        files=[],
        blank=tokens.index(BLANK) if BLANK in tokens else 0,
        unk=tokens.index(UNKNOWN) if UNKNOWN in tokens else None,
        unit=config.get("unit", "word"),
        spaceless=bool(config.get("spaceless", False)),
        task=config["task"],
        method=config["method"],
        sparsity=subnetwork.sparsity(),
        zeros=sum(removed for removed, _ in counts),
        head=config.get("head", {}),
        details={
            "subnetwork": str(path),
            "config_sha256": sha256_file(path / CONFIG),
            **{
                key: config[key]
                for key in ("targets", "scope", "pattern", "versions")
                if key in config
            },
        },
    )
