"""A bundle as export writes it, sent and installed."""

import numpy as np
import pytest
from subnetworks import make_subnetwork

from s3router.export.bundle import make_bundle
from s3router.export.verification import check_bundle
from s3router.formats.files import folder_sizes
from s3router.formats.install import install
from s3router.formats.pack import pack
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder


@pytest.fixture(scope="module")
def folders(tmp_path_factory, encoder_folder):
    """Return subnetworks that remove, for the most part, what is small."""
    root, made = tmp_path_factory.mktemp("small"), []
    weights = load_encoder(str(encoder_folder)).maskable_weights()
    for seed, code in enumerate(("aa", "bb")):
        rng = np.random.default_rng(seed)
        folder = make_subnetwork(root / f"{code}0", encoder_folder, code)
        subnetwork = Subnetwork.load(folder)
        for name, weight in weights.items():
            size = np.abs(weight)
            mask = size > np.quantile(size, 0.3)
            mask.reshape(-1)[rng.integers(0, mask.size, 5)] ^= True
            subnetwork.masks[name] = mask
        made.append(subnetwork.save(root / code))
    return made


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_order_of_masks_is_that_of_weights(folders, tmp_path, precision):
    """Weights lie transposed in a graph: so must what magnitude says."""
    bundle = tmp_path / "bundle"
    for some in (folders, folders[:1]):
        make_bundle(some, bundle, precision=precision)
        numbers = pack(bundle, tmp_path / "b.s3r", with_backbone=False)
        sent = sum(row["masks"] for row in numbers["languages"].values())
        sent += numbers["consensus"]
        bound = sum(row["bound"] for row in numbers["languages"].values())
        # Five bits of each of twelve layers; 20 bytes are the frame's own.
        # Many bytes are equal, and which of those go is noise.
        assert sent < (0.6 if precision == "fp32" else 0.8) * bound
        assert "none" not in numbers["languages"]["aa"]["references"]
        install(tmp_path / "b.s3r", tmp_path / "there", bundle)
        for name in folder_sizes(bundle):
            there = (tmp_path / "there" / name).read_bytes()
            assert there == (bundle / name).read_bytes()
    check_bundle(tmp_path / "there")
