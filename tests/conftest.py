"""What all tests share: paths, threads, and real speech where there is any."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# Several files of one name cannot all be searched for doctests.
collect_ignore_glob = ["*/conftest.py"]

for folder in (ROOT, ROOT / "tests" / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# Small models are faster so, and several test runs do not fight for cores.
torch.set_num_threads(1)

# Where torch.compile is the first to use autograd, it starts threads that no
# forked process has, and forks of this one could not train.
torch.ones(1, requires_grad=True).backward()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real recordings; skip where there is none."""
    shared = Path(os.environ.get("S3ROUTER_SHARED", ROOT.parent / "shared"))
    data = shared / "data"
    if not data.is_dir():
        pytest.skip(
            f"no real speech at {data}; set S3ROUTER_SHARED to the folder "
            "that holds data/"
        )
    return data


@pytest.fixture(scope="session")
def make_commonvoice(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function that lays packs out as a Common Voice release.

    ``make_commonvoice("zh_dsp20", minutes=0.5, limits={"dev": 9, "test": 9})``
    returns the release's folder; see `tests/tools/shared_to_commonvoice.py`.
    """
    from shared_to_commonvoice import convert

    def make(*packs: str, **options) -> Path:
        output = tmp_path_factory.mktemp("commonvoice")
        convert(list(packs), output, shared=shared_data.parent, **options)
        return output

    return make
