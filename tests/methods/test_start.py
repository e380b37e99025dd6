"""Masks of another subnetwork that pruning starts from."""

import pytest
from method_encoders import make_encoder, save
from numpy_rules import build_and_prepare

from s3router.errors import MismatchError, SettingError


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_of_another_encoder_is_refused(name, tmp_path):
    encoder = make_encoder(seed=1)
    full = build_and_prepare("full", encoder)
    folder = save(full, tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="was made for the encoder"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_that_masks_other_targets_is_refused(name, tmp_path):
    other = build_and_prepare("magnitude", make_encoder(), "attention")
    folder = save(other, tmp_path / "attention")
    with pytest.raises(MismatchError, match="masks other targets"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))
    # Fewer targets than it masks are there.
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    folder = save(sparse, tmp_path / "all")
    build_and_prepare(name, make_encoder(), "attention", start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_sparser_than_asked_for_is_refused(name, tmp_path):
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    start = str(save(sparse, tmp_path / "half"))
    with pytest.raises(SettingError, match="at least 0.5"):
        build_and_prepare(name, make_encoder(), sparsity=0.4, start_mask=start)
    method = build_and_prepare(
        name, make_encoder(), sparsity=0.6, start_mask=start
    )
    for key, mask in method.masks().items():
        assert not (mask & ~sparse.masks()[key]).any()
