"""Run the pre-training recipe and note what this process did.

Usage: pretrain_and_digest.py FOLDER DIE_AT hparams.yaml [options]

FOLDER gets `<rank>.json`: digests of the batches in their order, learning
rates, files written, and a digest of the final weights. With DIE_AT above 0,
the main process kills itself at that step of a stage behind the warm-up.
"""

import hashlib
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import speechbrain as sb
import torch

from s3router.brains import pretrain
from s3router.formats import files

ROOT = Path(__file__).resolve().parents[2]


def digest(tensors: list[torch.Tensor]) -> str:
    """Return a hash over tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()[:16]


def watch(die_at: int) -> dict:
    """Note batches, rates, weights and files of this process."""
    notes = {"batches": [], "rates": [], "files": [], "weights": {}}
    start = pretrain.PretrainBrain.on_fit_batch_start
    step = sb.Brain.optimizers_step
    end = pretrain.PretrainBrain.on_stage_end

    def on_fit_batch_start(brain, batch, should_step):
        name = brain.curve.path.stem
        at_step = name != "warmup" and brain.optimizer_step == die_at
        if die_at and at_step and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        tensors = [t for t in batch if torch.is_tensor(t)]
        notes["batches"].append([name, digest(tensors)])
        start(brain, batch, should_step)

    def optimizers_step(brain):
        rate = brain.optimizer.param_groups[0]["lr"]
        notes["rates"].append([brain.curve.path.stem, rate])
        step(brain)

    def on_stage_end(brain, stage, loss, epoch):
        weights = list(brain.modules.parameters())
        notes["weights"][brain.curve.path.stem] = digest(weights)
        end(brain, stage, loss, epoch)

    pretrain.PretrainBrain.on_fit_batch_start = on_fit_batch_start
    pretrain.PretrainBrain.on_stage_end = on_stage_end
    sb.Brain.optimizers_step = optimizers_step
    replace = os.replace

    def noted_replace(source, target):
        notes["files"].append(Path(target).name)
        replace(source, target)

    files.os.replace = noted_replace
    return notes


def main(folder: Path, die_at: int) -> None:
    """Run the recipe of the remaining arguments; write the notes."""
    notes = watch(die_at)
    script = ROOT / "recipes" / "pretrain" / "train.py"
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *sys.argv[3:]]
    runpy.run_path(str(script), run_name="__main__")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(notes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
