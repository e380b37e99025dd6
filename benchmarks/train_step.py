"""Time and memory of one training step: full, mask tuning, the original's.

    python benchmarks/train_step.py                     # wav2vec2-base, 10 s
    python benchmarks/train_step.py --shape=tiny        # seconds, for a look
    python benchmarks/train_step.py --device=cuda

Random weights, one clip of noise, a CTC head, Adam, convolutions frozen, no
dropout. Each variant runs in a process of its own, so that its peak memory is
its own; the processes take turns over several rounds, so that what else the
machine does falls on all alike. Ratios are between medians of one run.
Expected: mask tuning takes at most 1.15x the time of a full fine-tuning step,
and at most 1.15x its peak memory. The reference for
the original is re-created in `reference_rules.py`. Must not be imported.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from measure import machine, pick_device, seconds, summary, write
from reference_rules import mask_every_forward
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from s3router.masks.router import Router
from s3router.masks.targets import resolve_targets

#: Name to how the step is made, and on which layers.
VARIANTS = {
    "full": ("full", "all"),
    "ours_feed_forward": ("ours", "feed_forward"),
    "ours_all": ("ours", "all"),
    "original_feed_forward": ("sort", "feed_forward"),
    "original_all": ("sort", "all"),
    "kthvalue_feed_forward": ("kthvalue", "feed_forward"),
    "kthvalue_all": ("kthvalue", "all"),
}
BAR = 1.15
SAMPLE_RATE = 16000
VOCABULARY = 32
TINY = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 768,
    "conv_dim": (32, 32, 32, 64, 64, 64, 64),
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 8,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--shape", choices=("base", "tiny"), default="base")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sparsity", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="per round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _encoder(shape: str) -> Wav2Vec2Model:
    off = dict.fromkeys(
        (
            "hidden_dropout",
            "attention_dropout",
            "activation_dropout",
            "feat_proj_dropout",
            "layerdrop",
            "mask_time_prob",
        ),
        0.0,
    )
    config = Wav2Vec2Config(**(TINY if shape == "tiny" else {}), **off)
    encoder = Wav2Vec2Model(config)
    encoder.freeze_feature_encoder()
    return encoder


class Step:
    """One training step of one variant, in parts that are timed apart."""

    def __init__(self, options: argparse.Namespace, device: str):
        torch.manual_seed(0)
        how, targets = VARIANTS[options.one]
        self.encoder = _encoder(options.shape).to(device).train()
        self.router = None
        if how == "ours":
            self.router = Router(self.encoder, targets, options.sparsity)
            trained = list(self.router.scores().values())
        elif how == "full":
            trained = [p for p in self.encoder.parameters() if p.requires_grad]
        else:
            names = resolve_targets(self.encoder, targets)
            trained = mask_every_forward(
                self.encoder, names, options.sparsity, how
            )
        width = self.encoder.config.hidden_size
        self.head = nn.Linear(width, VOCABULARY).to(device)
        trained += self.head.parameters()
        self.trained = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.Adam(trained, lr=5e-5)
        samples = int(options.seconds * SAMPLE_RATE)
        self.audio = torch.randn(1, samples, device=device)
        length = max(1, int(options.seconds * 10))
        self.text = torch.randint(1, VOCABULARY, (1, length), device=device)
        self.loss = torch.zeros(())

    def forward(self) -> None:
        """Compute the loss."""
        logits = self.head(self.encoder(self.audio).last_hidden_state)
        scores = logits.float().log_softmax(-1).transpose(0, 1)
        self.loss = nn.functional.ctc_loss(
            scores,
            self.text,
            (scores.shape[0],),
            (self.text.shape[1],),
            zero_infinity=True,
        )

    def backward(self) -> None:
        """Compute the gradients."""
        self.loss.backward()

    def update(self) -> None:
        """Let the optimizer step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def refresh(self) -> None:
        """Select the masks anew; only ours does so outside of forward."""
        if self.router is not None:
            self.router.refresh()


def _run_one(options: argparse.Namespace, device: str) -> None:
    """Be one variant: print the times of its steps as a line of JSON."""
    torch.set_num_threads(options.threads)
    step = Step(options, device)
    parts = (step.forward, step.backward, step.update, step.refresh)
    for part in parts:  # the first one warms up
        part()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times = [
        {part.__name__: seconds(part, device) for part in parts}
        for _ in range(options.repeats)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
    result = {"times": times, "peak": peak, "trained": step.trained}
    print(json.dumps(result))


def _run_round(
    options: argparse.Namespace, device: str, variants: list[str]
) -> dict[str, dict]:
    """Run every variant once, each in a fresh process."""
    done = {}
    for name in variants:
        command = [
            *(sys.executable, __file__, f"--one={name}"),
            *(f"--device={device}", f"--shape={options.shape}"),
            *(f"--seconds={options.seconds}", f"--threads={options.threads}"),
            f"--sparsity={options.sparsity}",
            f"--repeats={options.repeats}",
        ]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{name} failed:\n{ran.stderr}")
        done[name] = json.loads(ran.stdout.splitlines()[-1])
        step = sum(done[name]["times"][-1].values())
        print(f"  {name:<24}{step:8.3f} s", flush=True)
    return done


def _collect(rounds: list[dict[str, dict]]) -> dict[str, dict]:
    """Return for each variant its times, parts, memory and ratio."""
    rows: dict[str, dict] = {}
    for name in rounds[0]:
        times = [time for each in rounds for time in each[name]["times"]]
        rows[name] = {
            "step": summary([sum(time.values()) for time in times]),
            "parts": {
                part: summary([time[part] for time in times])["median"]
                for part in times[0]
            },
            "peak_megabytes": round(max(e[name]["peak"] for e in rounds), 1),
            "trained": rounds[0][name]["trained"],
        }
    if "full" in rows:
        for row in rows.values():
            for key in ("median", "minimum"):
                ratio = row["step"][key] / rows["full"]["step"][key]
                row[f"of_full_{key}"] = round(ratio, 4)
            ratio = row["peak_megabytes"] / rows["full"]["peak_megabytes"]
            row["of_full_memory"] = round(ratio, 4)
    return rows


def _show(rows: dict[str, dict]) -> None:
    head = ("variant", "s/step", "of full", "(min)", "fwd", "bwd", "opt")
    print("{:<24}{:>8}{:>9}{:>8}{:>7}{:>7}{:>7}".format(*head), end="")
    print(f"{'refresh':>9}{'MB':>8}{'of full':>9}")
    for name, row in rows.items():
        ratios = [row.get(f"of_full_{k}", 0) for k in ("median", "minimum")]
        parts = row["parts"]
        print(
            f"{name:<24}{row['step']['median']:8.3f}"
            f"{ratios[0]:9.3f}{ratios[1]:8.3f}"
            f"{parts['forward']:7.2f}{parts['backward']:7.2f}"
            f"{parts['update']:7.2f}{parts['refresh']:9.3f}"
            f"{row['peak_megabytes']:8.0f}{row.get('of_full_memory', 0):9.3f}"
        )


def main() -> None:
    """Measure, print a table, write the JSON."""
    options = _arguments()
    device = pick_device(options.device)
    if options.one:
        _run_one(options, device)
        return
    variants = options.variants.split(",")
    rounds = []
    for index in range(options.rounds):
        print(f"round {index + 1} of {options.rounds}, {device}")
        # Another one begins each time: a machine that heats up or gets busy
        # does not always hit the same variant.
        turn = index % len(variants)
        order = variants[turn:] + variants[:turn]
        done = _run_round(options, device, order)
        rounds.append({name: done[name] for name in variants})
    rows = _collect(rounds)
    _show(rows)
    result = {
        "benchmark": "train_step",
        "shape": options.shape,
        "audio_seconds": options.seconds,
        "sparsity": options.sparsity,
        "machine": {**machine(device), "threads": options.threads},
        "variants": rows,
    }
    ours = [name for name in rows if name.startswith("ours")]
    if "full" in rows and ours:
        worst = {
            what: max(rows[name][f"of_full_{key}"] for name in ours)
            for what, key in (("time", "median"), ("memory", "memory"))
        }
        told = ", ".join(f"{what} {of:.3f}" for what, of in worst.items())
        print(f"mask tuning, of full: {told}; bar {BAR}")
        reached = {what: of <= BAR for what, of in worst.items()}
        result["bar"] = {"of_full": BAR, "reached": reached}
    suffix = "" if options.shape == "base" else f"_{options.shape}"
    name = f"train_step_{device}{suffix}.json"
    write(options.output or Path(__file__).parent / "results" / name, result)


if __name__ == "__main__":
    main()
