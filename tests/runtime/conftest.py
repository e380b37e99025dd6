"""Fixtures for the tests of the runtime."""

from pathlib import Path

import pytest
from toy_bundles import make_toy_bundle


@pytest.fixture
def toy_bundle(tmp_path: Path) -> Path:
    """Return a fresh bundle with the one language xx."""
    return make_toy_bundle(tmp_path / "bundle")
