"""The pre-training recipe through its real command, on noise and tones."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from s3router.formats.files import read_json

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 4}"
)
OPTIONS = {
    "sources": "[]",
    "synthetic_hours": 0,
    "encoder_config": SMALL,
    "warmup_epochs": 1,
    "warmup_steps": 2,
    "warmup_clips": 2,
    "warmup_seconds": 0.5,
    "mel_bins": 20,
    "epoch_steps": 6,
    "batch_frames": 100,
    "crop_frames": 50,
    "iterations": "[{units: 8, epochs: 2, of: mfcc}, "
    "{units: 6, epochs: 2, of: 1}]",
    "export_every": 1,
    "precision": "fp32",
    "save_environment": False,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two languages of three noisy clips, one of them stereo at 48 kHz."""
    root = tmp_path_factory.mktemp("audio")
    generator = np.random.default_rng(0)
    for number in range(6):
        folder = root / ("xx" if number % 2 else "yy") / f"speaker{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        time_axis = np.arange(16000) / 16000
        tone = np.sin(2 * np.pi * (200 + 150 * number) * time_axis**2)
        wave = 0.3 * tone + 0.05 * generator.standard_normal(16000)
        soundfile.write(folder / f"{number}.wav", wave, 16000)
    stereo = 0.1 * generator.standard_normal((48000, 2))
    soundfile.write(root / "yy" / "speaker0" / "wide.flac", stereo, 48000)
    (root / "xx" / "broken.wav").write_bytes(b"no audio")
    soundfile.write(root / "xx" / "short.wav", np.ones(100) * 0.1, 16000)
    return root


def command(data, output, **changes):
    options = {**OPTIONS, **changes, "data_folder": data}
    options["output_folder"] = output
    return [
        sys.executable,
        "recipes/pretrain/train.py",
        "hparams/pretrain_tiny.yaml",
        *(f"--{name}={value}" for name, value in options.items()),
        "--noprogressbar",
    ]


def start(data, output, **changes):
    return subprocess.Popen(
        command(data, output, **changes),
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(data, output, **changes):
    process = start(data, output, **changes)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrain") / "run"
    code, text = run(recordings, output)
    assert code == 0, text
    return output


def test_the_encoder_loads_in_plain_transformers(finished):
    from transformers import AutoFeatureExtractor, HubertModel

    folder = finished / "encoder"
    model = HubertModel.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2
    assert model.config.layerdrop == 0.0
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert extractor.do_normalize and extractor.sampling_rate == 16000
    out = model(torch.randn(1, 16000)).last_hidden_state
    assert out.shape == (1, 49, 16)
    assert torch.isfinite(out).all()


def test_the_encoder_loads_in_ours(finished):
    from s3router.models.encoder import load_encoder

    encoder = load_encoder(str(finished / "encoder"))
    assert encoder.normalize_input
    assert encoder.hidden_size == 16


def test_curves_and_card_tell_what_was_done(finished):
    for number in (1, 2):
        curve = read_json(finished / "curves" / f"iteration_{number}.json")
        steps = [entry["step"] for entry in curve["entries"]]
        assert steps == [6, 12]
        last = curve["entries"][-1]
        assert 0 < last["valid_masked_loss"] < 5
        assert last["train_hours"] == pytest.approx(6 * 2 / 3600, rel=0.25)
    card = (finished / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "8 units of MFCCs" in card
    assert "6 units of layer 1" in card
    assert "xx yy" in card
    assert "Not measured yet." in card


def test_what_was_left_out_is_listed(finished):
    record = read_json(finished / "work" / "pool.json")
    left_out = {
        reason: [Path(name).name for name in names]
        for reason, names in record["skipped"].items()
    }
    assert left_out["undecodable"] == ["broken.wav"]
    assert left_out["too short"] == ["short.wav"]
    assert record["sources"][0]["clips"] == 7


def test_the_front_end_is_frozen_after_its_warm_up(finished):
    saved = next((finished / "work" / "warmup").glob("CKPT*"))
    warm = torch.load(saved / "model.ckpt", weights_only=True)
    final = load_file(finished / "encoder" / "model.safetensors")
    name = "conv_layers.3.conv.weight"
    torch.testing.assert_close(
        final[f"feature_extractor.{name}"], warm[f"front_end.{name}"].half()
    )
    assert not torch.equal(
        final["feature_projection.projection.weight"],
        warm["projection.projection.weight"].half(),
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_at_its_step(recordings, finished, tmp_path):
    output = tmp_path / "run"
    # Also within epochs, so that some kills fall behind such a checkpoint.
    often = {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 1}
    process = start(recordings, output, **often)
    marker = output / "work" / "iteration_1"
    try:
        while process.poll() is None and len(list(marker.glob("*"))) < 2:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        text = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, text
    code, text = run(recordings, output, **often)
    assert code == 0, text
    assert "Loading a checkpoint" in text
    uninterrupted = load_file(finished / "encoder" / "model.safetensors")
    resumed = load_file(output / "encoder" / "model.safetensors")
    for name, weights in uninterrupted.items():
        assert weights.equal(resumed[name]), name
    entries = [
        read_json(folder / "curves" / "iteration_1.json")["entries"]
        for folder in (finished, output)
    ]
    for first, second in zip(*entries, strict=True):
        assert first["step"] == second["step"]
        # Without those steps of an epoch that came before the kill, the
        # training means differ; the validation is all there.
        assert first["valid_loss"] == second["valid_loss"]


def test_a_fault_is_one_line(tmp_path):
    code, text = run("nowhere", tmp_path / "run")
    assert code == 2, text
    errors = [x for x in text.splitlines() if x.startswith("s3router: error")]
    assert errors == ["s3router: error: no such data folder: nowhere"], text
    assert "Traceback" not in text
