"""Synthetic clips of the pool, and the phones beside them."""

import numpy as np
import pytest
import soundfile

from s3router.data.synthetic_pool import make_synthetic_pool
from s3router.errors import SettingError
from s3router.formats.files import read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    pytest.importorskip("espeakng_loader", reason="no eSpeak NG")
    pytest.importorskip("babel", reason="no words for eSpeak NG")
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, make_synthetic_pool(folder, ["sw", "fi"], 0.01, 3)


def test_each_language_has_its_share(made):
    _, rows = made
    for language in ("sw", "fi"):
        own = [row for row in rows if row["language"] == language]
        seconds = [row["duration"] for row in own]
        # The clip that fills the share is the last.
        assert sum(seconds[:-1]) < 18 <= sum(seconds)
    assert len({row["ID"] for row in rows}) == len(rows)


def test_phones_lie_beside_each_clip_with_their_times(made):
    _, rows = made
    for row in rows:
        samples, rate = soundfile.read(row["wav"])
        assert rate == 16000
        phones = read_json(row["wav"].replace(".flac", ".json"))
        starts = [start for _, start in phones]
        assert starts == sorted(starts)
        assert 0 <= starts[0] and starts[-1] <= samples.size
        assert all(isinstance(name, str) and name for name, _ in phones)
        # What is loud is spoken: pauses are quieter than phones by far.
        pause = np.zeros(samples.size, bool)
        ends = [*starts[1:], samples.size]
        for (name, start), end in zip(phones, ends, strict=True):
            pause[start:end] = name.startswith("_")
        pause[: starts[0]] = True
        if pause.sum() > 1600:
            assert samples[pause].std() < 0.5 * samples[~pause].std()


def test_clips_are_kept_and_lost_phones_are_told_again(made):
    folder, rows = made
    kept, lost = (folder / "sw" / f"{n:06d}.flac" for n in (0, 1))
    phones = lost.with_suffix(".json")
    before = lost.read_bytes(), phones.read_bytes()
    time = kept.stat().st_mtime_ns
    phones.unlink()
    again = make_synthetic_pool(folder, ["sw", "fi"], 0.01, 3)
    assert again == rows
    assert kept.stat().st_mtime_ns == time
    assert (lost.read_bytes(), phones.read_bytes()) == before


def test_no_language_is_said(tmp_path):
    with pytest.raises(SettingError, match="needs synthetic_languages"):
        make_synthetic_pool(tmp_path, [], 1.0, 0)
