"""The frozen front end's output for a recipe's clips, computed once.

In memory, or in a folder where other runs on the same clips find it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from speechbrain.utils.distributed import run_on_main

from s3router.brains.kept_features import (
    KeptFeatures,
    features_path,
    keep_features,
)
from s3router.data.audio import read_audio
from s3router.data.augment import DegradedClips, with_copies
from s3router.data.manifest import read_manifest
from s3router.models.front_end_cache import FrontEndCache
from s3router.models.ssl_encoder import SSLEncoder


def front_end_features(
    encoder: SSLEncoder,
    csvs: Mapping[str, Path],
    copies: DegradedClips,
    hparams: Mapping,
) -> Callable[[str], torch.Tensor]:
    """Run the frozen front end once over every clip and every copy.

    Arguments
    ---------
    encoder : SSLEncoder
        On the device that computes.
    csvs : mapping
        Split name to manifest.
    copies : DegradedClips
        Of the split `train`.
    hparams : mapping
        With `sample_rate`, `augmented_copies`, `cache_megabytes` (the limit
        in memory) and `reuse_folder` (None: in memory).

    Returns
    -------
    callable
        ID, as of `copy_id`, to its (time, channels) features.

    Raises
    ------
    SettingError
        If they do not fit into memory.
    """
    rate = hparams["sample_rate"]
    held_out = {
        row["ID"]: row["wav"]
        for name, csv in csvs.items()
        if name != "train"
        for row in read_manifest(csv)
    }
    train = with_copies(sorted(copies.wavs), hparams["augmented_copies"])

    def read(uid: str) -> torch.Tensor:
        return read_audio(held_out[uid], rate)

    if hparams["reuse_folder"] is None:
        cache = FrontEndCache(encoder, hparams["cache_megabytes"])
        cache.add(
            [(uid, partial(read, uid)) for uid in held_out]
            + [(uid, partial(copies, uid)) for uid in train]
        )
        return cache.get
    keep = partial(_keep, encoder, Path(hparams["reuse_folder"]))
    made_of = [rate, copies.seed, copies.shortest, train, _files(copies.wavs)]
    seen = keep("train", train, copies, made_of)
    unseen = keep("held_out", sorted(held_out), read, [rate, _files(held_out)])
    return lambda uid: (seen if uid in seen else unseen).get(uid)


def _keep(
    encoder: SSLEncoder,
    folder: Path,
    name: str,
    ids: Sequence[str],
    samples: Callable[[str], torch.Tensor],
    depends_on: Sequence[object],
) -> KeptFeatures:
    path = features_path(encoder, folder, name, depends_on)
    run_on_main(keep_features, args=[encoder, path, ids, samples])
    return KeptFeatures(path, ids)


def _files(wavs: Mapping[str, str]) -> list[tuple[str, str, int, int]]:
    """Return what tells that clips are still the same."""
    stats = [(u, wav, Path(wav).stat()) for u, wav in sorted(wavs.items())]
    return [(u, wav, s.st_size, s.st_mtime_ns) for u, wav, s in stats]
