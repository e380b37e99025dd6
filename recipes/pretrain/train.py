#!/usr/bin/env python3
"""Pre-trains a speech encoder by masked prediction of k-means units.

To run this recipe, from the repository's root, on any folder of audio:
> python recipes/pretrain/train.py hparams/pretrain_tiny.yaml \
    --data_folder=/path/to/audio --sources=[]

HuBERT (Hsu et al., 2021) in iterations: units of MFCCs first, then units of a
layer of the network so trained. Before them, the front end learns log mel
bands and is frozen, so that its output is computed once. A run that was
stopped goes on where it was.

The output folder gets the encoder (`encoder/`, in the Hugging Face format,
usable from the first minutes on) and the learning curves (`curves/*.json`).
"""

import sys
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.logger import get_logger
from transformers import HubertModel

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.brains.pretrain import LearningCurve, MelBrain, UnitBrain
from s3router.brains.pretrain_layers import (
    layer_agreement,
    parallel_speech,
)
from s3router.brains.pretrain_targets import (
    LayerFrames,
    MelCrops,
    MFCCFrames,
    cache_features,
    decode_pool,
    held_out,
    make_units,
)
from s3router.data.crops import CropBatches, clip_probabilities
from s3router.data.manifest import read_manifest
from s3router.data.ragged import Ragged
from s3router.errors import SettingError, exit_on_error
from s3router.formats.files import write_json
from s3router.models.hubert_folder import bfloat16_is_fast, save_hubert
from s3router.models.pretrain_head import MelRegressor, UnitPredictor

logger = get_logger(__name__)


@exit_on_error
def main(arguments):
    """Gather speech, warm up, and pre-train in iterations."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    hparams = load_hparams(hparams_file, overrides)
    output = Path(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        save_env_desc=hparams["save_environment"],
    )
    (output / "hyperparams.yaml").write_text(
        flatten_hparams(hparams_file, overrides), encoding="utf-8"
    )

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
    precision = hparams["precision"]
    if precision == "auto":
        precision = "bf16" if bfloat16_is_fast() else "fp32"
    run_opts = {**run_opts, "precision": precision}
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    encoder = HubertModel(hparams["encoder_config"])
    warm_up(encoder, pool, hparams, run_opts)
    versions = features_of(encoder, pool, hparams)
    previous = None
    for number, iteration in enumerate(hparams["iterations"], start=1):
        units = units_of(
            number,
            iteration,
            previous,
            pool,
            versions[0],
            (hparams, kind, encoder.feature_extractor),
        )
        previous = run_iteration(
            number,
            iteration,
            encoder,
            pool,
            versions,
            units,
            (hparams, run_opts),
        )
    save_hubert(encoder, hparams["encoder_folder"])
    write_json(output / "done.json", {"iterations": hparams["iterations"]})
    logger.info("the encoder is in %s", hparams["encoder_folder"])


if __name__ == "__main__":
    main(sys.argv[1:])
