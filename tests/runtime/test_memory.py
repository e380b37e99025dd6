"""Memory as the system counts it, against memory that was taken on purpose."""

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from s3router.runtime import memory as module
from s3router.runtime.memory import memory_use

MEGABYTE = 1 << 20
SIZE = 64 * MEGABYTE
linux = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells"
)


@pytest.fixture
def written():
    """Pages from the system itself: the allocator may have some left over."""
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE) as pages:
        yield pages


@linux
def test_what_is_written_is_private(written):
    before = memory_use()
    np.frombuffer(written, np.uint8)[:] = 1
    after = memory_use()
    for kind in ("private", "private_dirty", "proportional"):
        grown = after[kind] - before[kind]
        assert SIZE - MEGABYTE < grown < SIZE + 8 * MEGABYTE
    assert after["peak"] > after["private"]


@linux
def test_what_is_only_mapped_is_not(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(32 * MEGABYTE))
    with path.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            before = memory_use()
            assert not np.frombuffer(mapped, np.uint8)[::4096].any()
            after = memory_use()
    assert after["private"] - before["private"] < 4 * MEGABYTE
    kinds = ("private_dirty", "private_clean", "proportional")
    grown = [after[kind] - before[kind] for kind in kinds]
    # Dirty or clean by whether the system has written the new file out yet.
    assert grown[0] + grown[1] > 28 * MEGABYTE and grown[2] > 14 * MEGABYTE


@linux
def test_a_peak_stays(written):
    np.frombuffer(written, np.uint8)[:] = 1
    with_it = memory_use()
    written.close()
    without = memory_use()
    assert without["private"] < with_it["private"] - 32 * MEGABYTE
    assert without["peak"] >= with_it["peak"] - MEGABYTE


def test_where_the_system_does_not_tell_only_the_peak_is_known(
    monkeypatch, tmp_path
):
    known = memory_use()["peak"]
    monkeypatch.setattr(module, "_ROLLUP", tmp_path / "none")
    monkeypatch.setattr(module, "_STATUS", tmp_path / "none")
    use = memory_use()
    assert {use[k] for k in use if k != "peak"} == {None}
    assert abs(use["peak"] - known) < 0.1 * known
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_use()["peak"] is None
