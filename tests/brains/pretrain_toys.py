"""A small pool of tones, an encoder, and settings for the stages."""

from types import SimpleNamespace

import numpy as np
import torch
from transformers import HubertConfig

from s3router.brains.schedule import warmup_cosine
from s3router.data.crops import Version
from s3router.data.ragged import Ragged, write_ragged
from s3router.models.encoder_folder import build_encoder
from s3router.models.frame_grid import FrameGrid

CHANNELS = 16


def small_config(**changes):
    """Return the configuration of an encoder with frames of 40 ms."""
    values = {
        "conv_dim": (8,) * 7 + (CHANNELS,),
        "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2),
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": True,
        "initializer_range": 0.06,
        "mask_time_prob": 0.05,
        "layerdrop": 0.0,
    }
    for name in ("hidden", "activation", "attention", "feat_proj", "final"):
        values[f"{name}_dropout"] = 0.0
    return HubertConfig(**{**values, **changes})


def small_encoder(family="hubert", **changes):
    """Return a random encoder of that shape."""
    torch.manual_seed(0)
    return build_encoder(small_config(**changes), family)


def settings(folder, **changes):
    """Return what stages read of the recipe's YAML."""
    values = {
        "objective": "hubert",
        "seed": 3,
        "output_folder": str(folder),
        "work_folder": str(folder / "work"),
        "encoder_folder": str(folder / "encoder"),
        "encoder_config": small_config(),
        "iterations": [{"units": 6, "epochs": 2, "of": "mfcc"}],
        "contrastive": {
            "epochs": 2,
            "codebooks": 2,
            "codes": 8,
            "width": 16,
            "distractors": 10,
            "temperature": 0.1,
            "code_temperature": [2.0, 0.5],
            "diversity_weight": 0.1,
        },
        "lr": 0.01,
        "warmup_lr": 0.002,
        "schedule": warmup_cosine,
        "opt_class": torch.optim.AdamW,
        "max_grad_norm": 1.0,
        "ckpt_interval_minutes": 0,
        "epoch_steps": 10,
        "batch_seconds": 8.0,
        "crop_seconds": 2.0,
        "span_seconds": 0.2,
        "span_share": 0.5,
        "degraded_share": 0.5,
        "degraded_versions": 1,
        "held_out_share": 0.1,
        "language_alpha": 0.7,
        "seen_weight": 0.5,
        "snapshot_hours": [],
        "export_every": 1,
        "known_sentences": 4,
        "phone_directions": 0,
        "phone_labels": [],
        "unit_fit_frames": 1000,
        "num_workers": 0,
        "train_loggers": [],
    }
    return {**values, **changes}


def tones(folder, clips=24, frames=50, notes=6):
    """Return versions and a pool: each frame's features are one of few notes.

    A note lasts for five frames; the noisy version has noise of half its size.
    """
    generator = np.random.default_rng(0)
    patterns = 2 * generator.standard_normal((notes, CHANNELS))
    melodies = [
        np.repeat(generator.integers(notes, size=frames // 5), 5)
        for _ in range(clips)
    ]
    clean = [patterns[melody] for melody in melodies]
    noisy = [c + 0.5 * generator.standard_normal(c.shape) for c in clean]
    write_ragged(folder / "clean", clean, "float16")
    write_ragged(folder / "noisy", noisy, "float16")
    write_ragged(folder / "units", melodies, "uint16")
    versions = [
        Version(Ragged(folder / name, "float16")) for name in ("clean", "noisy")
    ]
    valid = np.arange(clips) < 4
    pool = SimpleNamespace(
        grid=FrameGrid.of(small_config()),
        train=np.where(valid, 0.0, 1.0),
        valid=np.where(valid, 1.0, 0.0),
    )
    return versions, pool, Ragged(folder / "units", "uint16")
