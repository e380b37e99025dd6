"""A recipe that ends at once, and a comparison of it."""

import sys
from pathlib import Path

import pytest

RECIPE = '''
"""Writes what a recipe leaves behind, by a formula instead of training."""
import json, sys
from pathlib import Path
import numpy as np
from s3router.evaluation.error_rates import error_rate
from s3router.evaluation.results import write_result
from s3router.formats.files import write_json
from s3router.formats.subnetwork import Subnetwork

yaml, *options = sys.argv[1:]
told = dict(o[2:].split("=", 1) for o in options if "=" in o)
folder = Path(told["output_folder"])
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parents[3] / "order.txt", "a") as file:
    file.write(" ".join([yaml, told["seed"], told["evaluate_test"]]) + chr(10))
if told.get("lr_weights") == "0.5":
    sys.exit("the loss is not finite")
masked = "sparse" in yaml
sparsity = float(told["sparsity"]) if masked else 0.0
rate = float(told.get("lr_scores", told.get("lr_weights", 0.1)))
# Best at a rate of 0.02; masks are better, most so at half.
wrong = abs(rate - 0.02) * 10 + (0.1 + abs(sparsity - 0.5) if masked else 0.3)
count = round(20 * wrong) + int(told["seed"]) % 2
refs = ["ab"] * 20
hyps = ["ab" if i >= count else "ax" for i in range(20)]
mask = np.ones(100, bool)
mask[: round(100 * sparsity)] = False
config = {
    "method": "m", "language": told["language"], "task": "ctc",
    "encoder": "e", "fingerprint": "f", "sample_rate": 16000,
    "spaceless": False,
}
Subnetwork(
    config,
    {"fc": mask.reshape(10, 10)} if masked else {},
    {"weight": np.zeros((3, 2), np.float32)},
    ["<blk>", "<unk>", "a"],
).save(folder / "subnetwork")
metrics = {"dev_cer": wrong / 2, "dev_wer": wrong}
if told["evaluate_test"] == "True":
    metrics["test_cer"] = error_rate(refs, hyps)
    rows = zip(refs, hyps, strict=True)
    write_json(folder / "transcripts.json", [
        {"id": str(i), "reference": r, "hypothesis": h}
        for i, (r, h) in enumerate(rows)
    ])
from s3router.brains.hparams import flatten_hparams, parse_yaml
given = {k: parse_yaml(f"v: {v}", "")["v"] for k, v in told.items()}
settings = parse_yaml(flatten_hparams(yaml, given), "")
config = json.loads(json.dumps(settings, default=str))
write_result(
    folder / "result.json", config=config, seed=int(told["seed"]),
    metrics=metrics,
    extra={
        "trainable_parameters": 7, "subnetwork_bytes": 1000,
        "seconds_per_batch": 0.25, "training_seconds": 1.0,
        "peak_memory_bytes": 2e8,
    },
)
'''


@pytest.fixture
def comparison(tmp_path):
    """The YAML of a comparison of two methods on one language, two seeds."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE, encoding="utf-8")
    path = tmp_path / "words.yaml"
    path.write_text(
        f"""
recipe: {recipe}
output_folder: {tmp_path / "out"}
baseline: full
seeds: [1, 2]
common: {{encoder: tiny, data_folder: {tmp_path}}}
each: {{language: [ar]}}
methods:
    full: {{yaml: hparams/zh_full.yaml, search: {{lr_weights: [0.01, 2e-2]}}}}
    mask_tuning:
        yaml: hparams/zh_sparse.yaml
        sparsity: [0.2, 0.5]
        search: {{lr_scores: [0.02, 0.04]}}
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """YAMLs are named from the root of the repository."""
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    assert sys.executable
