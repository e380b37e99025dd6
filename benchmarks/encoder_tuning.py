"""One trial: one method on one encoder, one labelled draw, one rate, one seed.

In process, without checkpoints: a trial is short, and its result is kept. The
product's own parts do the work (CTCBrain, CTCModel, warm_head, the methods),
so a study may call `run_trial` with any settings that they take.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from encoder_batches import TrialClips, evaluation_loader, training_loader
from encoder_brain import TrialBrain, fit, make_brain
from encoder_data import Clip, Task
from encoder_features import Features
from speechbrain.nnet.losses import ctc_loss

from s3router.brains.warm_head import warm_head
from s3router.data.tokens import Tokens
from s3router.errors import SettingError, near
from s3router.evaluation.error_rates import error_rate
from s3router.methods.base import Method, trainable_count
from s3router.methods.registry import build_method
from s3router.models.ctc_model import CTCModel
from s3router.models.heads import CTCHead
from s3router.models.precision import choose_attention, resolve_precision
from s3router.models.ssl_encoder import SSLEncoder

#: What a trial is, where it says nothing else. `rate` is that of what the
#: method trains, and of the head where it trains nothing.
DEFAULTS: dict[str, object] = {
    "task": None,
    "minutes": 2.0,  # labelled; None: all
    "seed": 0,
    "method": "mask_tuning",
    "settings": {},  # of build_method
    "rate": 1e-2,
    "head_rate": 2e-3,
    "steps": 1000,
    # Twice as much costs a third more, and serves masks and weights alike.
    "batch_seconds": 24.0,
    "copies": 4,
    "mask_prob": 0.3,
    "mask_seconds": 0.12,
    "channel_prob": 0.1,
    "channel_length": 16,
    "warm_steps": 1000,
    "warm_rate": 3e-2,
    "max_grad_norm": 1.0,
    "precision": "auto",  # bf16 where that is fast, else fp32
}


def complete(
    trial: Mapping[str, object], device: str = "cpu"
) -> dict[str, object]:
    """Return a trial with the defaults filled in.

    Raises
    ------
    SettingError
        If it has an unknown key.
    """
    for key in trial:
        if key not in DEFAULTS:
            raise SettingError(
                f"a trial has no {key!r}: {near(key, DEFAULTS)}"
                f"Known: {', '.join(DEFAULTS)}"
            )
    full = {**DEFAULTS, **trial}
    full["precision"] = resolve_precision(full["precision"], device)
    return full


def run_trial(
    trial: Mapping[str, object],
    encoder: SSLEncoder,
    task: Task,
    features: Mapping[str, Features],
    heads: Path | None = None,
    build: Callable[..., Method] = build_method,
) -> dict[str, object]:
    """Train one method; score it on dev, and transcribe test unscored.

    What it recognised in test is kept sealed: whoever has chosen a rate on dev
    scores the texts of that rate, and no other.

    Arguments
    ---------
    trial : mapping
        Keys of `DEFAULTS`.
    encoder : SSLEncoder
        Untouched; the trial works on a copy.
    task : Task
        Its clips.
    features : mapping
        `train`, `dev` and `test`: features of what the trial uses.
    heads : pathlib.Path, optional
        Where warm heads are kept, for the other methods.
    build : callable
        Makes the method from its name and the trial's settings, to which
        `seed` is added where they do not say it.

    Returns
    -------
    dict
        `trial`, `dev` (rate and counts), `test` (`references` and
        `hypotheses`), `loss` (mean of the last tenth), `diverged`, `trained`
        values, `seconds`, `cpu_seconds`, and what the method says of itself.
    """
    trial = complete(trial, encoder.mask_embedding.device.type)
    started = time.perf_counter(), time.process_time()
    drawn = task.draw(trial["minutes"], trial["seed"])
    tokens = task.tokens(drawn)
    train = TrialClips(drawn, tokens, features["train"])
    model = _model(encoder, tokens, train, trial, heads)
    settings = {"seed": trial["seed"], **trial["settings"]}
    method = build(trial["method"], **settings)
    method.prepare(model.encoder.model)
    brain = make_brain(model, method, trial)
    brain.tokens, brain.unit = tokens, task.settings.unit

    loader = training_loader(
        train,
        *(trial[k] for k in ("steps", "batch_seconds", "copies", "seed")),
    )
    torch.manual_seed(trial["seed"])  # what a method drew must not matter
    diverged = fit(brain, loader)
    result = {
        "trial": trial,
        "labelled_seconds": round(sum(c.seconds for c in drawn), 2),
        "diverged": diverged,
        "loss": _tail(brain.losses),
        "trained": trainable_count(brain.parameter_groups()),
        "method": method.describe(),
        "removed": _removed(method),
        "stored_bytes": _stored_bytes(method),
        "dev": _counts(
            _texts(brain, task.dev, tokens, features["dev"], diverged), task
        ),
        "test": _texts(brain, task.test, tokens, features["test"], diverged),
    }
    result["seconds"] = round(time.perf_counter() - started[0], 2)
    result["cpu_seconds"] = round(time.process_time() - started[1], 2)
    return result


def _model(
    encoder: SSLEncoder,
    tokens: Tokens,
    train: TrialClips,
    trial: Mapping[str, object],
    heads: Path | None,
) -> CTCModel:
    """Return a copy of the encoder under a head that is warm already."""
    device = encoder.mask_embedding.device
    encoder = copy.deepcopy(encoder).to(device)
    choose_attention(encoder.model, device.type, trial["precision"])
    torch.manual_seed(trial["seed"])
    head = CTCHead(encoder.hidden_size, len(tokens.symbols))
    model = CTCModel(encoder, head).to(device)
    copies = range(trial["copies"] + 1)
    warm_head(
        model,
        [train.features.of(c.id, n) for c in train.clips for n in copies],
        [target for target in train.targets for _ in copies],
        partial(ctc_loss, blank_index=0),
        trial["warm_steps"],
        trial["warm_rate"],
        seed=trial["seed"],
        progress=False,
        reuse_folder=heads,
    )
    return model


def _texts(
    brain: TrialBrain,
    clips: Sequence[Clip],
    tokens: Tokens,
    features: Features,
    diverged: bool,
) -> dict[str, list[str]]:
    """Return what was said and recognised; a diverged model is silent."""
    references = {clip.id: clip.text for clip in clips}
    hypotheses = dict.fromkeys(references, "")
    if not diverged:
        brain.evaluate(evaluation_loader(TrialClips(clips, tokens, features)))
        pairs = zip(brain.utterance_ids, brain.hypotheses, strict=True)
        hypotheses.update(pairs)
    return {
        "references": list(references.values()),
        "hypotheses": list(hypotheses.values()),
    }


def _counts(texts: Mapping[str, list[str]], task: Task) -> dict[str, object]:
    """Return the error rate of texts and what it is made of."""
    refs, hyps = texts["references"], texts["hypotheses"]
    return asdict(error_rate(refs, hyps, task.settings.unit, replicates=0))


def _tail(losses: Sequence[float]) -> float | None:
    tail = losses[-max(1, len(losses) // 10) :]
    return round(sum(tail) / len(tail), 4) if tail else None


def _removed(method: Method) -> float:
    """Return the share of the masked weights that is gone."""
    masks = method.masks().values()
    total = sum(mask.numel() for mask in masks)
    kept = sum(int(mask.sum()) for mask in masks)
    return 1 - kept / total if total else 0.0


def _stored_bytes(method: Method) -> int:
    """Return what a method adds to the head: 1 bit a mask entry, else fp16."""
    factors = method.describe().get("adapter_bytes")
    if factors is not None:
        return factors
    masks = sum(-(-m.numel() // 8) for m in method.masks().values())
    return masks + 2 * sum(w.numel() for w in method.weights().values())
