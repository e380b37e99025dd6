#!/usr/bin/env python3
"""Finds a subnetwork of a frozen speech encoder for one Common Voice language.

To run this recipe, from the repository's root:
> python recipes/commonvoice/train.py hparams/zh_sparse.yaml \
    --data_folder=/path/to/cv-corpus

Without a GPU or downloaded weights, add --encoder=tiny. The YAML chooses the
method; `--method=full` or `--method=head_only` train the baselines with the
same data, steps and head. A run that was stopped goes on where it was.

The output folder gets the subnetwork (`subnetwork/`), the error rates with
their intervals (`result.json`), the test transcripts (`transcripts.json`) and
the logs.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import if_main_process, run_on_main

from s3router.brains.ctc import CTCBrain
from s3router.brains.experiment import (
    build_tokens,
    put_head,
    settle_precision,
    start_experiment,
    training_copies,
)
from s3router.brains.front_end_features import front_end_features
from s3router.brains.hparams import parse_yaml
from s3router.brains.loaders import make_loader
from s3router.brains.method_settings import SHARED, refuse_unused
from s3router.brains.report import report_run, save_subnetwork
from s3router.brains.run_settings import hold_settings
from s3router.brains.stages import (
    check_stages,
    is_finished,
    mark_finished,
    stages_of,
)
from s3router.brains.warm_head import warm_head
from s3router.data.augment import DrawnCopies, with_copies
from s3router.data.dataset import speech_dataset
from s3router.data.languages import is_spaceless, selection_unit
from s3router.data.tokens import Tokens
from s3router.errors import exit_on_error
from s3router.masks.apply import apply_masks
from s3router.masks.front_end import front_end_masks
from s3router.methods.base import trainable_count
from s3router.models.ctc_model import CTCModel
from s3router.models.heads import CTCHead
from s3router.models.ssl_encoder import SSLEncoder

#: Clip ID to the (time, channels) output of the frozen front end.
Features = Callable[[str], torch.Tensor]


@exit_on_error
def main(arguments: list[str]) -> None:
    """Run the experiment's stage, or its stages, one after the other."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    stages = stages_of(hparams_file, overrides)
    told = parse_yaml(overrides, "the command line")
    refuse_unused(hparams_file, told, told, SHARED)
    check_stages(hparams_file, stages)
    for number, settings in enumerate(stages, start=1):
        if number < len(stages) and is_finished(hparams_file, settings):
            continue
        if len(stages) > 1 and if_main_process():
            folder = settings["output_folder"]
            print(f"stage {number} of {len(stages)}: {folder}", flush=True)
        run_stage(hparams_file, run_opts, settings)
        if len(stages) > 1:
            run_on_main(mark_finished, args=[hparams_file, settings])


def run_stage(
    hparams_file: str, run_opts: sb.RunOptions, overrides: dict
) -> None:
    """Prepare the data, train, evaluate, and save the subnetwork."""
    started = time.perf_counter()
    hparams = start_experiment(hparams_file, overrides, __file__)
    run_on_main(hold_settings, args=[hparams_file, overrides, hparams])
    unit = selection_unit(hparams["language"], hparams["select_by"])
    csvs = prepare_data(hparams)
    tokens = build_tokens(csvs["train"], hparams)

    encoder = hparams["ssl_encoder"]
    # Before anything is computed, or kept, with the front end.
    front_end = front_end_masks(encoder.model, hparams["front_end_sparsity"])
    apply_masks(encoder.model, front_end)
    head = CTCHead(
        encoder.hidden_size, len(tokens.symbols), hparams["head_dropout"]
    )
    recognizer = CTCModel(encoder, head)
    run_opts, device = settle_precision(run_opts, hparams)
    recognizer.to(device)
    datasets, features = build_datasets(encoder, csvs, tokens, hparams)
    # Before the method touches the encoder: all methods share this head.
    if hparams["start_head"] is not None:
        put_head(head, tokens, hparams["start_head"])
    elif (
        features is not None
        and hparams["checkpointer"].find_checkpoint() is None
    ):
        warm_up_head(recognizer, datasets["train"], features, hparams)
    fingerprint = encoder.fingerprint()
    method = hparams["subnetwork_method"]
    method.prepare(encoder.model)

    brain = CTCBrain(
        method=method,
        head=head,
        modules={"recognizer": recognizer},
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.tokens, brain.unit = tokens, unit
    brain.spaceless = is_spaceless(hparams["language"])
    fit_and_test(brain, datasets, hparams)

    identity = identity_of(brain, encoder, fingerprint, hparams)
    run_on_main(
        save_subnetwork, args=[brain, tokens, identity, hparams, front_end]
    )
    trained = trainable_count(brain.parameter_groups())
    spent = time.perf_counter() - started
    run_on_main(report_run, args=[brain, hparams, csvs, trained, spent])


def identity_of(
    brain: CTCBrain, encoder: SSLEncoder, fingerprint: str, hparams: dict
) -> dict[str, object]:
    """Return what the subnetwork is for: language, encoder, audio."""
    return {
        "language": hparams["language"],
        "task": "ctc",
        "encoder": hparams["encoder"],
        "fingerprint": fingerprint,
        "sample_rate": hparams["sample_rate"],
        "normalize": encoder.normalize_input,
        "unit": brain.unit,
        "spaceless": brain.spaceless,
        "head": {"type": "ctc", "layer": "last"},
        "front_end_sparsity": hparams["front_end_sparsity"],
    }


def prepare_data(hparams: dict) -> dict[str, Path]:
    """Read the release on the main process; return a manifest a split."""
    from prepare import prepare_commonvoice

    manifests = Path(hparams["save_folder"])
    run_on_main(
        prepare_commonvoice,
        kwargs={
            "data_folder": hparams["data_folder"],
            "language": hparams["language"],
            "save_folder": manifests,
            "train_minutes": hparams["train_minutes"],
            "min_seconds": hparams["min_seconds"],
            "max_seconds": hparams["max_seconds"],
            "sample_rate": hparams["sample_rate"],
            "min_samples": hparams["ssl_encoder"].min_samples,
            "seed": hparams["seed"],
            "clip_memory": hparams["clip_memory"],
        },
    )
    return {s: manifests / f"{s}.csv" for s in ("train", "dev", "test")}


def build_datasets(
    encoder: SSLEncoder,
    csvs: dict[str, Path],
    tokens: Tokens,
    hparams: dict,
) -> tuple[dict[str, DynamicItemDataset], Features | None]:
    """Return the splits, and cached features of the front end, if wanted."""
    copies = training_copies(csvs["train"], hparams)
    features = None
    if hparams["cache_front_end"]:
        features = front_end_features(encoder, csvs, copies, hparams)
    drawn = DrawnCopies(features or copies, hparams["augmented_copies"])
    datasets = {}
    for split, csv in csvs.items():
        get = drawn if split == "train" else features
        kind = "audio" if features is None else "features"
        datasets[split] = speech_dataset(
            csv, tokens, hparams["sample_rate"], **{kind: get}
        )
    return datasets, features


def warm_up_head(
    recognizer: CTCModel,
    train: DynamicItemDataset,
    features: Features,
    hparams: dict,
) -> None:
    """Fit the head on the untouched encoder."""
    rows = [
        (features(uid), row["tokens"])
        for row in (train[i] for i in range(len(train)))
        for uid in with_copies([row["id"]], hparams["augmented_copies"])
    ]
    folder = hparams["reuse_folder"]
    warm_head(
        recognizer,
        [row[0] for row in rows],
        [row[1] for row in rows],
        hparams["ctc_cost"],
        hparams["head_warmup_steps"],
        hparams["lr_head_warmup"],
        seed=hparams["seed"],
        progress=if_main_process(),
        reuse_folder=None if folder is None else Path(folder) / "heads",
    )


def fit_and_test(
    brain: CTCBrain,
    datasets: dict[str, DynamicItemDataset],
    hparams: dict,
) -> None:
    """Fit, then load the best checkpoint, and evaluate it on the test set."""
    seconds = hparams["eval_batch_seconds"]
    train = make_loader(
        brain,
        datasets["train"],
        sb.Stage.TRAIN,
        hparams["train_batch_seconds"],
        hparams,
    )
    dev, test = (
        make_loader(brain, datasets[s], stage, seconds, hparams)
        for s, stage in (("dev", sb.Stage.VALID), ("test", sb.Stage.TEST))
    )
    brain.fit(hparams["epoch_counter"], train, dev)
    if hparams["evaluate_test"]:
        brain.evaluate(test, min_key=brain.selection_key)
    else:
        brain.checkpointer.recover_if_possible(min_key=brain.selection_key)


if __name__ == "__main__":
    main(sys.argv[1:])
