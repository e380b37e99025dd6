"""Copies of clips: a function of seed, clip and number, and drawn evenly."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from s3router.data import augment
from s3router.data.audio import read_audio
from s3router.data.augment import (
    DegradedClips,
    DrawnCopies,
    copy_id,
    with_copies,
)
from s3router.data.degrade import SPEEDS


@pytest.fixture
def wavs(tmp_path):
    generator = np.random.default_rng(0)
    found = {}
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        wave = 0.1 * generator.standard_normal(4000 + 500 * number)
        soundfile.write(path, wave, 16000)
        found[f"c{number}"] = path
    return found


def test_copy_0_is_the_clip_itself(wavs):
    clips = DegradedClips(wavs, shortest=99999)
    for name, path in wavs.items():
        assert clips(copy_id(name, 0)).equal(read_audio(path))


def test_copies_depend_on_seed_clip_and_number_alone(wavs):
    first, again = (
        DegradedClips(wavs),
        DegradedClips(dict(reversed(wavs.items()))),
    )
    names = [copy_id(n, k) for n in wavs for k in (1, 2, 3)]
    copies = {name: first(name) for name in names}
    for name in reversed(names):
        assert again(name).equal(copies[name])
    assert len({copy.numpy().tobytes() for copy in copies.values()}) == 12
    other = DegradedClips(wavs, seed=1)
    for name, copy in copies.items():
        assert copy.dtype == torch.float32 and torch.isfinite(copy).all()
        found = other(name)
        assert found.shape != copy.shape or not found.equal(copy)


def test_copies_have_a_speed_and_at_least_the_shortest_length(wavs):
    free, padded = DegradedClips(wavs), DegradedClips(wavs, shortest=4500)
    sizes = {int(np.ceil(4000 / speed)) for speed in SPEEDS}
    seen = set()
    for number in range(1, 30):
        copy, long = (c(copy_id("c0", number)) for c in (free, padded))
        assert min(abs(len(copy) - size) for size in sizes) <= 1
        seen.add(len(copy))
        assert len(long) == max(len(copy), 4500)
        assert long[: len(copy)].equal(copy) and not long[len(copy) :].any()
    assert len(seen) > 4


def test_the_talker_is_another_clip_where_there_is_one(wavs, monkeypatch):
    talkers = []

    def noted(clean, other, generator, sample_rate):
        talkers.append(other)
        return clean

    monkeypatch.setattr(augment, "degrade", noted)
    clips = DegradedClips(wavs)
    own = {name: read_audio(path).numpy() for name, path in wavs.items()}
    heard = Counter()
    for number in range(1, 60):
        clips(copy_id("c3", number))
        (name,) = [n for n, w in own.items() if np.array_equal(w, talkers[-1])]
        heard[name] += 1
    assert set(heard) == {"c0", "c1", "c2"}
    DegradedClips({"c3": wavs["c3"]})(copy_id("c3", 1))
    np.testing.assert_array_equal(talkers[-1], own["c3"])


def test_each_copy_is_drawn_as_often():
    asked = []
    draw = DrawnCopies(lambda name: asked.append(name) or torch.zeros(1), 2)
    torch.manual_seed(0)
    for _ in range(900):
        draw("a")
    counts = Counter(asked)
    assert set(counts) == {"a", copy_id("a", 1), copy_id("a", 2)}
    assert all(240 < count < 360 for count in counts.values())
    torch.manual_seed(0)
    first = list(asked)
    asked.clear()
    for _ in range(900):
        draw("a")
    assert asked == first  # torch's state decides


def test_without_copies_nothing_is_drawn():
    before = torch.get_rng_state()
    assert DrawnCopies(lambda name: name, 0)("a") == "a"
    assert torch.get_rng_state().equal(before)


def test_ids_of_all_copies():
    assert with_copies(["a", "b"], 0) == ["a", "b"]
    expected = ["a", "a#copy1", "a#copy2", "b", "b#copy1", "b#copy2"]
    assert with_copies(["a", "b"], 2) == expected
