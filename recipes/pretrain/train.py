#!/usr/bin/env python3
"""Pre-trains a speech encoder by masked prediction of k-means units.

To run this recipe, from the repository's root, on any folder of audio:
> python recipes/pretrain/train.py hparams/pretrain_tiny.yaml \
    --data_folder=/path/to/audio --sources=[] --synthetic_hours=0

HuBERT (Hsu et al., 2021) in iterations: units of MFCCs first, then units of a
layer of the network so trained. Before them, the front end learns log mel
bands and is frozen, so that its output is computed once. A run that was
stopped goes on where it was.

The output folder gets the encoder (`encoder/`, in the Hugging Face format,
usable from the first minutes on, with its model card at the end) and the
learning curves (`curves/*.json`).
"""

import sys
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import run_on_main
from transformers import HubertModel

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.brains.pretrain_card import write_card
from s3router.brains.pretrain_pool import (
    Pool,
    check_iterations,
    features_of,
    units_of,
)
from s3router.brains.pretrain_stages import (
    resolve_precision,
    run_iteration,
    warm_up,
)
from s3router.errors import exit_on_error
from s3router.models.hubert_folder import bfloat16_is_fast, save_hubert


@exit_on_error
def main(arguments: list[str]) -> None:
    """Gather speech, warm up, pre-train in iterations, write the encoder."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    hparams = load_hparams(hparams_file, overrides)
    check_iterations(hparams)
    output = Path(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        save_env_desc=hparams["save_environment"],
    )
    settings = flatten_hparams(hparams_file, overrides)
    (output / "hyperparams.yaml").write_text(settings, encoding="utf-8")

    from prepare import prepare_pool

    run_on_main(
        prepare_pool,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["work_folder"],
            "sources": hparams["sources"],
            "synthetic_hours": hparams["synthetic_hours"],
            "synthetic_languages": hparams["synthetic_languages"],
            "min_seconds": hparams["min_seconds"],
            "max_seconds": hparams["max_seconds"],
            "seed": hparams["seed"],
        },
    )
    pool = Pool(hparams)
    # SpeechBrain takes --precision for itself, and knows no "auto".
    wanted = run_opts.get("precision", hparams["precision"])
    precision = resolve_precision(wanted, bfloat16_is_fast())
    run_opts = {**run_opts, "precision": precision}

    encoder = HubertModel(hparams["encoder_config"])
    warm_up(encoder, pool, hparams, run_opts)
    versions = features_of(encoder, pool, hparams)
    model = None
    for number in range(1, len(hparams["iterations"]) + 1):
        units = units_of(number, encoder, model, pool, versions[0], hparams)
        model = run_iteration(
            number, encoder, pool, versions, units, hparams, run_opts
        )
    run_on_main(save_hubert, args=[encoder, hparams["encoder_folder"]])
    run_on_main(write_card, args=[encoder, hparams])


if __name__ == "__main__":
    main(sys.argv[1:])
