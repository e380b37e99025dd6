"""A bundle of five languages, for packing and installing."""

from pathlib import Path

import pytest
from bundle_writer import masks_of, weights_of, write_bundle


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Return a bundle of five languages: dense, empty, and three others."""
    densities = {"xx": 0.9, "yy": 0.5, "zh-CN": 0.03, "all": 1.0, "none": 0.0}
    masks = {
        code: masks_of(density, seed)
        for seed, (code, density) in enumerate(densities.items())
    }
    return write_bundle(tmp_path / "bundle", weights_of(), masks)
