#!/usr/bin/env python3
"""Pre-trains a speech encoder on unlabelled speech.

To run this recipe, from the repository's root, on any folder of audio:
> python recipes/pretrain/train.py hparams/pretrain_tiny.yaml \
    --data_folder=/path/to/audio --sources=[]

HuBERT (Hsu et al., 2021) in iterations: phones of synthetic speech or units of
MFCCs first, then units of a layer of the network so trained. With
--objective=wav2vec2 the contrastive task of wav2vec 2.0 (Baevski et al., 2020)
instead. Before either, the front end learns log mel bands and is frozen, so
that its output is computed once. A run that was stopped goes on where it was.
Several processes: torchrun.

The output folder gets the encoder (`encoder/`, in the Hugging Face format,
usable from the first minutes on, with its model card at the end), the learning
curves, and what its units tell about phones of people (`curves/*.json`).
"""

import dataclasses
import sys
from pathlib import Path

import speechbrain as sb
import torch
from huggingface_hub.errors import StrictDataclassError
from speechbrain.utils.distributed import infer_device
from transformers import PreTrainedModel

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.brains.main_process import on_main
from s3router.brains.pretrain_card import write_card
from s3router.brains.pretrain_checks import check_settings
from s3router.brains.pretrain_human_phones import (
    check_phone_labels,
    measure_run,
)
from s3router.brains.pretrain_pool import Pool, features_of, units_of
from s3router.brains.pretrain_snapshots import remove_leftovers
from s3router.brains.pretrain_stages import run_contrastive, run_iteration
from s3router.brains.pretrain_warm_up import warm_up
from s3router.data.crops import Version
from s3router.errors import SettingError, exit_on_error
from s3router.models.encoder_folder import build_encoder, save_encoder
from s3router.models.precision import resolve_precision


def load_settings(path: str, overrides: str) -> dict:
    """Return the settings of the YAML; refuse what could not run."""
    try:
        hparams = load_hparams(path, overrides)
    except StrictDataclassError as error:
        line = " ".join(str(error.__cause__ or error).split())
        raise SettingError(f"encoder_config: {line}") from error
    check_settings(hparams)
    check_phone_labels(hparams["phone_labels"])
    return hparams


def run_options(parsed: sb.RunOptions, hparams: dict) -> dict:
    """Return the run options that were given, device and precision.

    SpeechBrain's own defaults are left out: settings of the YAML would lose
    against them.
    """
    options = {name: parsed[name] for name in parsed.overridden_args}
    if options.get("ckpt_interval_steps"):
        # SpeechBrain takes one of the two.
        options.setdefault("ckpt_interval_minutes", 0)
    options["distributed_backend"] = parsed.distributed_backend
    options["device"] = parsed.device or infer_device()
    options["precision"] = resolve_precision(
        options.get("precision", hparams["precision"]), options["device"]
    )
    return options


def join_processes(parsed: sb.RunOptions) -> sb.RunOptions:
    """Meet the processes that torchrun started, if it did."""
    if parsed.device == "cpu" or not torch.cuda.is_available():
        parsed = dataclasses.replace(parsed, distributed_backend="gloo")
    sb.utils.distributed.ddp_init_group(parsed)
    return parsed


def pretrain(
    encoder: PreTrainedModel,
    pool: Pool,
    versions: list[Version],
    hparams: dict,
    run_opts: dict,
) -> None:
    """Train the encoder by the objective of the YAML."""
    if hparams["objective"] == "wav2vec2":
        run_contrastive(encoder, pool, versions, hparams, run_opts)
        return
    model = None
    for number in range(1, len(hparams["iterations"]) + 1):
        clean = versions[0].features
        units = units_of(number, encoder, model, pool, clean, hparams)
        model = run_iteration(
            number, encoder, pool, versions, units, hparams, run_opts
        )


@exit_on_error
def main(arguments: list[str]) -> None:
    """Gather speech, warm up, pre-train, write and measure the encoder."""
    hparams_file, parsed, overrides = sb.parse_arguments(arguments)
    parsed = join_processes(parsed)
    hparams = load_settings(hparams_file, overrides)
    run_opts = run_options(parsed, hparams)
    hparams["precision"] = run_opts["precision"]
    encoder = build_encoder(
        hparams["encoder_config"], hparams["objective"], run_opts["device"]
    )
    output = Path(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        save_env_desc=hparams["save_environment"],
    )
    settings = flatten_hparams(hparams_file, overrides)
    on_main((output / "hyperparams.yaml").write_text, settings, "utf-8")
    on_main(remove_leftovers, hparams)

    from prepare import prepare_pool

    on_main(
        prepare_pool,
        data_folder=hparams["data_folder"],
        save_folder=hparams["work_folder"],
        sources=hparams["sources"],
        synthetic_hours=hparams["synthetic_hours"],
        synthetic_languages=hparams["synthetic_languages"],
        min_seconds=hparams["min_seconds"],
        max_seconds=hparams["max_seconds"],
        seed=hparams["seed"],
    )
    pool = Pool(hparams)
    warm_up(encoder, pool, hparams, run_opts)
    versions = features_of(encoder, pool, hparams)
    pretrain(encoder, pool, versions, hparams, run_opts)
    on_main(save_encoder, encoder, hparams["encoder_folder"])
    on_main(measure_run, hparams, run_opts["device"])
    on_main(write_card, encoder, hparams)


if __name__ == "__main__":
    main(sys.argv[1:])
