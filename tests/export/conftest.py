"""One small encoder, two subnetworks and their bundle, made once."""

from pathlib import Path

import pytest
from subnetworks import make_encoder, make_subnetwork

from s3router.export.bundle import make_bundle

# Doctest would import it again, and trip over another folder's conftest.py.
collect_ignore = ["conftest.py"]


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory) -> Path:
    """Return a random two-layer wav2vec2 encoder."""
    return make_encoder(tmp_path_factory.mktemp("e") / "enc", "wav2vec2-base")


@pytest.fixture(scope="session")
def subnetwork_folders(tmp_path_factory, encoder_folder: Path) -> list[Path]:
    """Return a masked one (zh-CN) and one of tuned weights (es)."""
    root = tmp_path_factory.mktemp("s")
    return [
        make_subnetwork(root / "zh", encoder_folder, "zh-CN", sparsity=0.37),
        make_subnetwork(root / "es", encoder_folder, "es", tuned=True, seed=1),
    ]


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory, subnetwork_folders: list[Path]
) -> tuple[Path, dict]:
    """Return the bundle of both, not to be changed, and its report."""
    folder = tmp_path_factory.mktemp("b") / "bundle"
    return folder, make_bundle(subnetwork_folders, folder, encoding="dense")
