"""Alignment of speech whose times are known."""

import itertools

import numpy as np
import pytest
import torch

from s3router.data.espeak import SPEAKERS, synthesize_phones
from s3router.data.synthetic_text import sentences
from s3router.errors import DataError, SettingError
from s3router.models.frame_grid import FrameGrid
from s3router.models.phone_alignment import (
    AlignedClip,
    AlignerSettings,
    align_phones,
    equal_segments,
)
from s3router.models.units import SPECTRA, mfcc


def test_flat_start_is_equal_shares_of_what_is_loud() -> None:
    loudness = np.array([0, 0, 9, 9, 9, 9, 9, 9, 0.0])[:, None]
    labels = equal_segments(loudness, [3, 1, 3])
    assert labels.tolist() == [0, 0, 3, 3, 1, 1, 3, 3, 0]
    # Fewer loud frames than phones: all frames are shared out.
    assert equal_segments(loudness[:4], [1, 2, 3]).tolist() == [1, 1, 2, 3]


def spoken(count: int, seed: int = 3) -> tuple[list, list, list]:
    """Return frames, phones by phrase and the truth of synthetic speech."""
    generator = np.random.default_rng(seed)
    frames, words, truth = [], [], []
    texts = sentences("sw", seed)
    for number in range(count):
        samples, phones = synthesize_phones(
            next(texts),
            "sw",
            SPEAKERS[number % 2],
            int(generator.integers(120, 160)),
            seed=number,
        )
        wave = torch.from_numpy((samples - samples.mean()) / samples.std())
        frames.append(mfcc(wave).numpy())
        names = [
            "" if name.startswith("_") else name.lstrip("',")
            for name, _ in phones
        ]
        middles = SPECTRA.middles(SPECTRA.frames(len(samples)))
        starts = [start for _, start in phones]
        place = np.searchsorted(starts, middles, side="right")
        truth.append(np.array(["", *names])[place])
        phrases = itertools.groupby(names, lambda name: name == "")
        words.append([list(part) for pause, part in phrases if not pause])
    for voice in (0, 1):
        own = np.concatenate(frames[voice::2])
        for number in range(voice, count, 2):
            frames[number] = (frames[number] - own.mean(0)) / own.std(0)
    return frames, words, truth


def share_right(labels: list[np.ndarray], truth: list[np.ndarray]) -> float:
    return float((np.concatenate(labels) == np.concatenate(truth)).mean())


@pytest.fixture(scope="module")
def speech() -> tuple[list, list, list]:
    return spoken(40)


def test_far_better_than_equal_shares(speech: tuple) -> None:
    frames, words, truth = speech
    equal = []
    for clip, one in zip(frames, words, strict=True):
        phones = [phone for word in one for phone in word]
        labels = equal_segments(clip, range(1, len(phones) + 1))
        equal.append(np.array(["", *phones])[labels])
    floor = share_right(equal, truth)
    aligned = align_phones(frames, words)
    assert share_right(aligned, truth) > 0.8 > 0.55 > floor


def test_the_same_each_time(speech: tuple) -> None:
    frames, words, _ = speech
    first, second = (align_phones(frames, words) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_phones_come_in_order_and_last(speech: tuple) -> None:
    frames, words, _ = speech
    settings = AlignerSettings(shortest=2)
    for labels, clip in zip(
        align_phones(frames, words, settings), words, strict=True
    ):
        runs = [
            (phone, len(list(group)))
            for phone, group in itertools.groupby(labels)
            if phone
        ]
        expected = [phone for word in clip for phone in word]
        # Twice the same phone in a row is one run.
        assert [p for p, _ in runs] == [
            phone for phone, _ in itertools.groupby(expected)
        ]
        assert min(length for _, length in runs) >= 2


def test_clips_that_cannot_be_aligned_are_none(speech: tuple) -> None:
    frames, words, _ = speech
    short = frames[0][:3]
    found = align_phones(
        [*frames[:6], short, frames[0]], [*words[:6], words[0], []]
    )
    assert [one is None for one in found] == [False] * 6 + [True, True]
    with pytest.raises(DataError, match="none of 1 clips"):
        align_phones([short], [words[0]])


def test_a_rare_phone_does_no_harm(speech: tuple) -> None:
    frames, words, _ = speech
    changed = [[list(word) for word in clip] for clip in words]
    changed[0][0][0] = "once"
    found = align_phones(frames, changed)
    assert 1 <= (found[0] == "once").sum() < 20


def test_silence_and_words_on_a_slower_grid() -> None:
    clip = AlignedClip("x", "x.wav", np.array(["", "a", "a", "b", "b", ""]))
    assert clip.on(SPECTRA, 6).tolist() == clip.phones.tolist()
    assert clip.on(FrameGrid(720, 640), 3).tolist() == ["a", "b", ""]
    # A grid that goes on a little longer keeps the last label.
    assert clip.on(SPECTRA, 8).tolist()[5:] == ["", "", ""]


@pytest.mark.parametrize(
    "name", ["components", "shortest", "plain_turns", "turns"]
)
def test_settings_that_cannot_be(name: str) -> None:
    with pytest.raises(SettingError, match=name):
        AlignerSettings(**{name: -1})
