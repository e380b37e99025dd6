"""A small encoder and small packs of tones, laid out as the shared data."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HubertConfig, HubertModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

WORDS = {"ba": 300.0, "ca": 700.0, "dab": 1300.0}
PHONES = {"ba": "B AA1", "ca": "K | AA0", "dab": "D AE2 B"}
SPEAKERS = {"train": range(0, 4), "dev": range(4, 6), "test": range(6, 8)}


def write_table(path: Path, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_pack(folder: Path, language: str, clips: int = 4) -> None:
    """Write a pack: of each word `clips` recordings by every speaker."""
    (folder / "audio").mkdir(parents=True)
    generator = np.random.default_rng(sum(folder.name.encode()))
    phones, spkid = [], {split: [] for split in SPEAKERS}
    for split, speakers in SPEAKERS.items():
        rows = []
        for speaker in speakers:
            for word, pitch in WORDS.items():
                for number in range(clips):
                    uid = f"{folder.name}_{speaker}_{word}_{number}"
                    seconds = 0.5 + 0.1 * number
                    time = np.arange(int(seconds * 16000)) / 16000
                    wave = np.sin(2 * np.pi * pitch * (1 + speaker / 50) * time)
                    wave += 0.1 * generator.standard_normal(len(time))
                    path = folder / "audio" / f"{uid}.wav"
                    soundfile.write(path, 0.3 * wave, 16000)
                    rows.append(
                        {
                            "ID": uid,
                            "duration": f"{seconds:.4f}",
                            "wav": f"audio/{uid}.wav",
                            "language": language,
                            "speaker": f"s{speaker}",
                            "text": word,
                        }
                    )
                    phones.append({"ID": uid, "phones": PHONES[word]})
                    part = ("train", "train", "dev", "test")[number % 4]
                    spkid[part].append(rows[-1])
        write_table(folder / f"{split}.csv", rows)
    for split, rows in spkid.items():
        write_table(folder / f"spkid_{split}.csv", rows)
    write_table(folder / "extra.csv", phones)


@pytest.fixture(scope="session")
def tones(tmp_path_factory) -> Path:
    """Return a folder as S3ROUTER_SHARED names one."""
    shared = tmp_path_factory.mktemp("shared")
    for pack in ("ar_commands", "zh_dsp20", "en_speechocean", "is_samromur"):
        write_pack(shared / "data" / pack, pack.split("_")[0])
    return shared


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory) -> Path:
    """Return the folder of a random encoder of two layers."""
    folder = tmp_path_factory.mktemp("encoders") / "small"
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        do_stable_layer_norm=True,
        layerdrop=0.0,
    )
    HubertModel(config).save_pretrained(folder)
    return folder
