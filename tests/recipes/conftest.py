"""A small corpus in the Common Voice layout, an encoder, and the command."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "commonvoice" / "train.py"
SYMBOLS = {"一": 300.0, "二": 500.0, "三": 800.0, "四": 1200.0}


def tone_clip(sentence: str, seed: int) -> np.ndarray:
    """Return (samples,) float32 at 16 kHz: one tone a character, noisy."""
    rng = np.random.default_rng(seed)
    time = np.arange(2400) / 16000
    gap = np.zeros(800)
    parts = [gap]
    for character in sentence:
        parts += [0.3 * np.sin(2 * np.pi * SYMBOLS[character] * time), gap]
    wave = np.concatenate(parts)
    return (wave + 0.01 * rng.standard_normal(len(wave))).astype(np.float32)


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Write one TSV and its clips."""
    rng = np.random.default_rng(seed)
    with open(folder / f"{split}.tsv", "w", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        writer.writerow(["client_id", "path", "sentence", "up_votes"])
        for i in range(count):
            sentence = "".join(rng.choice(list(SYMBOLS), size=3))
            name = f"{split}_{i}.wav"
            clip = tone_clip(sentence, seed + i)
            soundfile.write(folder / "clips" / name, clip, 16000)
            writer.writerow([f"{split}_{i % 3}", name, sentence, 2])


@pytest.fixture(scope="session")
def tone_corpus(tmp_path_factory) -> Path:
    """A corpus that a tiny encoder can learn: characters are tones."""
    root = tmp_path_factory.mktemp("cv")
    (root / "zh-CN" / "clips").mkdir(parents=True)
    for seed, (split, count) in enumerate(
        {"train": 24, "dev": 6, "test": 8}.items()
    ):
        write_split(root / "zh-CN", split, count, 1000 * seed)
    return root


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory) -> Path:
    """A random two-layer HuBERT in a Hugging Face folder."""
    from transformers import (
        HubertConfig,
        HubertModel,
        Wav2Vec2FeatureExtractor,
    )

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16, 16),
        conv_stride=(5, 8, 8),
        conv_kernel=(10, 8, 8),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True,
        initializer_range=0.06,
    )
    folder = tmp_path_factory.mktemp("encoder")
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


class Recipe:
    """Runs the real command with what a test changes."""

    def __init__(self, corpus: Path, encoder: Path, yaml: str = "zh_sparse"):
        self.corpus = corpus
        self.encoder = encoder
        self.yaml = yaml

    def command(self, output: Path, *options: str) -> list[str]:
        """Return the arguments behind the interpreter."""
        defaults = [
            f"--data_folder={self.corpus}",
            f"--encoder={self.encoder}",
            f"--output_folder={output}",
            f"--clip_memory={output}/clips.jsonl",
            "--targets=all",
            "--sparsity=0.5",
            "--lr_scores=0.01",
            "--lr_head=0.01",
            "--lr_weights=0.004",
            "--train_batch_seconds=6",
            "--num_buckets=1",
            "--num_workers=0",
            "--number_of_epochs=2",
            "--save_environment=False",
            "--device=cpu",
            "--noprogressbar",
        ]
        named = {o.split("=", 1)[0]: o for o in (*defaults, *options)}
        yaml = f"hparams/{self.yaml}.yaml"
        return [str(RECIPE), yaml, *named.values()]

    def of(self, yaml: str) -> "Recipe":
        """Return the same with another YAML of `hparams`."""
        return Recipe(self.corpus, self.encoder, yaml)

    def environment(self) -> dict[str, str]:
        """Return one-threaded, offline surroundings."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, output: Path, *options: str) -> subprocess.CompletedProcess:
        """Run to the end; output and errors are captured as text."""
        return subprocess.run(
            [sys.executable, *self.command(output, *options)],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="session")
def recipe(tone_corpus, small_encoder) -> Recipe:
    """The Common Voice recipe on the tone corpus."""
    return Recipe(tone_corpus, small_encoder)
