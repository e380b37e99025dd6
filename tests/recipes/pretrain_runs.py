"""Runs of the pre-training recipe: as a command, or forked off this process.

A fork has everything imported already, which is most of a small run's time; a
test may change something in it first, as when and where it dies.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "pretrain" / "train.py"
# Filter bank and frames of 40 ms, as the shipped encoder has.
SMALL = (
    "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 4, "
    "conv_dim: [8, 8, 8, 16]}"
)
# Short kernels, as HuBERT has, and group norm.
CLASSIC = SMALL.replace(
    "conv_dim: [8, 8, 8, 16]",
    "conv_dim: [8, 8, 8, 8, 8, 8, 8, 16], "
    "conv_kernel: [10, 3, 3, 3, 3, 2, 2, 2], "
    "conv_stride: [5, 2, 2, 2, 2, 2, 2, 2], "
    "feat_extract_norm: group, conv_bias: False",
)
CONTRASTIVE = "{epochs: 2, codebooks: 2, codes: 8, width: 8, distractors: 5}"
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
    "batch_seconds": 2,
    "crop_seconds": 1,
    "iterations": "[{units: 8, epochs: 2, of: mfcc}, "
    "{units: 6, epochs: 2, of: 1}]",
    "contrastive": CONTRASTIVE,
    "phone_directions": 0,
    "export_every": 1,
    "precision": "fp32",
    "save_environment": False,
    "device": "cpu",
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
}


def make_recordings(root):
    """Write two languages of noisy clips, one of them stereo at 48 kHz."""
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


def arguments(data, output, **changes):
    """Return what stands behind the script's name."""
    options = {**OPTIONS, "data_folder": data, **changes}
    options["output_folder"] = output
    return [
        "hparams/pretrain_tiny.yaml",
        *(f"--{name}={value}" for name, value in options.items()),
        "--noprogressbar",
    ]


def run_command(launcher, *words):
    """Run a command from the root; return its exit status and its output."""
    done = subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def load_recipe():
    """Return the recipe's module; it finds its own `prepare`."""
    sys.modules.pop("prepare", None)
    sys.path.insert(0, str(RECIPE.parent))
    spec = importlib.util.spec_from_file_location("pretrain_train", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_fork(log, words, first=None):
    """Run the recipe in a child; return its exit status and its output.

    `first()` is called in the child before it starts.
    """
    child = os.fork()
    if child == 0:
        status = 70
        try:
            with open(log, "w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.chdir(ROOT)
            # What pytest put in their place does not reach the file.
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
            if first is not None:
                first()
            load_recipe().main(words)
            status = 0
        except SystemExit as error:
            status = error.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), Path(log).read_text()


def die():
    """End this process as a kill or a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def error_line(status, text):
    """Return the one line of an error that was meant."""
    assert status == 2, text
    assert "Traceback" not in text, text
    lines = [x for x in text.splitlines() if x.startswith("s3router: error")]
    assert len(lines) == 1, text
    return lines[0]
