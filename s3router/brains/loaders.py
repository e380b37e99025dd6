"""Batches of clips of like length, filled up to so many seconds."""

import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from torch.utils.data import DataLoader


def make_loader(
    brain: sb.Brain,
    dataset: DynamicItemDataset,
    stage: sb.Stage,
    seconds: float,
    hparams: dict,
) -> DataLoader:
    """Return a loader whose batches hold up to `seconds` of audio.

    Arguments
    ---------
    brain : speechbrain.Brain
        Its checkpoints keep where in the training data it is.
    dataset : DynamicItemDataset
        With `duration` in seconds.
    stage : speechbrain.Stage
        Training batches are shuffled; others begin with the longest clips.
    seconds : float
        Of audio in a batch, padding included.
    hparams : dict
        With `num_buckets`, `num_workers` and `seed`.

    Returns
    -------
    torch.utils.data.DataLoader
        Of SpeechBrain's making.
    """
    training = stage == sb.Stage.TRAIN
    sampler = DynamicBatchSampler(
        dataset,
        max_batch_length=seconds,
        bucket_boundaries=bucket_boundaries(dataset, hparams["num_buckets"]),
        length_func=lambda row: float(row["duration"]),
        shuffle=training,
        batch_ordering="random" if training else "descending",
        seed=hparams["seed"],
    )
    loader = brain.make_dataloader(
        dataset,
        stage,
        ckpt_prefix="dataloader-" if training else None,
        batch_sampler=sampler,
        num_workers=hparams["num_workers"],
    )
    if training and brain.train_sampler is None:
        brain.train_sampler = sampler  # it is told the epoch
    return loader


def bucket_boundaries(dataset: DynamicItemDataset, buckets: int) -> list[float]:
    """Return upper bounds of length buckets that hold equally many clips.

    Arguments
    ---------
    dataset : DynamicItemDataset
        With `duration` in seconds.
    buckets : int
        How many; fewer where clips are equally long.

    Returns
    -------
    list of float
        In seconds, rising.
    """
    lengths = sorted(float(row["duration"]) for row in dataset.data.values())
    last = len(lengths) - 1
    bounds = {lengths[last * (i + 1) // buckets] for i in range(buckets)}
    return sorted(bounds)
