"""Front-end features on disk: those of memory, once a clip, whole or not."""

import pytest
import torch
from pretrain_toys import small_encoder

from s3router.brains.kept_features import (
    KeptFeatures,
    features_path,
    keep_features,
)
from s3router.errors import DataError, NotFoundError
from s3router.models.front_end_cache import FrontEndCache
from s3router.models.ssl_encoder import SSLEncoder

IDS = ("a", "b", "b#copy1")


@pytest.fixture
def encoder():
    return SSLEncoder(small_encoder(), "toy", normalize_input=True)


@pytest.fixture
def waves():
    generator = torch.Generator().manual_seed(5)
    return {
        uid: torch.randn(4000 + 900 * i, generator=generator)
        for i, uid in enumerate(IDS)
    }


def test_they_are_those_of_the_cache_in_memory(encoder, waves, tmp_path):
    path = features_path(encoder, tmp_path, "train", ["clips"])
    keep_features(encoder, path, IDS, waves.__getitem__, progress=False)
    kept = KeptFeatures(path, IDS)
    cache = FrontEndCache(encoder)
    cache.add([(u, lambda w=w: w) for u, w in waves.items()])
    for uid in IDS:
        assert uid in kept
        assert torch.equal(kept.get(uid), cache.get(uid))
    with pytest.raises(NotFoundError, match="has no clip 'c'"):
        kept.get("c")


def test_what_is_there_is_not_computed_again(encoder, waves, tmp_path):
    path = features_path(encoder, tmp_path, "train", ["clips"])
    keep_features(encoder, path, IDS, waves.__getitem__, progress=False)
    keep_features(encoder, path, IDS, {}.__getitem__, progress=False)


def test_a_clip_that_is_too_short_leaves_no_file(encoder, waves, tmp_path):
    path = features_path(encoder, tmp_path, "train", ["clips"])
    waves["b#copy1"] = torch.zeros(20)
    with pytest.raises(DataError, match="b#copy1"):
        keep_features(encoder, path, IDS, waves.__getitem__, progress=False)
    assert not list(tmp_path.rglob("*.f16*"))


def test_another_front_end_or_other_clips_have_another_file(encoder, tmp_path):
    path = features_path(encoder, tmp_path, "train", ["clips"])
    assert path != features_path(encoder, tmp_path, "train", ["others"])
    same = SSLEncoder(small_encoder(), "other name", normalize_input=True)
    assert path == features_path(same, tmp_path, "train", ["clips"])
    with torch.no_grad():
        next(same.model.feature_extractor.parameters()).mul_(1.001)
    assert path != features_path(same, tmp_path, "train", ["clips"])
