"""Fixtures of the tests of s3router.models."""

import pytest
import torch
from model_factory import FAMILY_CONFIGS


@pytest.fixture(params=sorted(FAMILY_CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    """Each family in each of its shapes."""
    return request.param


@pytest.fixture
def clips() -> list[torch.Tensor]:
    """Five clips of unlike length, loudness and offset."""
    generator = torch.Generator().manual_seed(1)
    sizes = (16000, 400, 9613, 719, 12345)
    return [
        (0.02 + 0.1 * i) * torch.randn(size, generator=generator) + 0.05 * i
        for i, size in enumerate(sizes)
    ]
