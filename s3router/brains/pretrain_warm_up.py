"""The first trained stage: the front end learns to be a filter bank.

Behind it the front end is frozen, so that its output is computed once.
"""

from collections.abc import Mapping

from transformers import PreTrainedModel

from s3router.brains.pretrain import MelBrain
from s3router.brains.pretrain_audio import MelCrops
from s3router.brains.pretrain_pool import Pool
from s3router.brains.pretrain_stages import (
    VALID_BATCHES,
    all_batches,
    fit_stage,
    stage_brain,
)
from s3router.models.filterbank import SHORTEST_KERNEL, start_as_filterbank
from s3router.models.pretrain_head import MelRegressor


def warm_up(
    encoder: PreTrainedModel, pool: Pool, hparams: Mapping, run_opts: Mapping
) -> None:
    """Teach the front end log mel bands, then freeze it.

    Its first convolution starts as a bank of band-pass filters, if it sees
    `SHORTEST_KERNEL` samples or more; else it starts at random.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        Its front end and projection train.
    pool : Pool
        Audio.
    hparams, run_opts : mapping
        Of the recipe.
    """
    first = encoder.feature_extractor.conv_layers[0].conv
    if first.kernel_size[0] >= SHORTEST_KERNEL:
        start_as_filterbank(first)
    brain = stage_brain(
        MelBrain,
        "warmup",
        MelRegressor(encoder, hparams["mel_bins"]),
        {"epochs": hparams["warmup_epochs"], "lr": hparams["warmup_lr"]},
        hparams,
        # Convolutions this narrow gain nothing from half precision.
        {**run_opts, "precision": "fp32"},
    )
    seed = hparams["seed"]
    sets = [
        MelCrops(
            pool.audio,
            drawn,
            batches,
            pool.grid,
            clips=hparams["warmup_clips"],
            seconds=hparams["warmup_seconds"],
            bins=hparams["mel_bins"],
            seed=own_seed,
        )
        for drawn, batches, own_seed in (
            (pool.train, all_batches(hparams["warmup_steps"]), seed),
            (pool.valid, VALID_BATCHES, seed + 1),
        )
    ]
    fit_stage(brain, *sets, hparams["num_workers"])
    encoder.feature_extractor.requires_grad_(False)
