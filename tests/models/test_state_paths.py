"""Best paths against enumeration of all that are allowed."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from s3router.models.state_paths import best_paths, state_path

INDEX = {"": 0, "a": 1, "b": 2, "c": 3}


def segmentations(
    words: list[list[str]], frames: int, shortest: int
) -> Iterator[list[int]]:
    """Yield each sequence of labels that the words allow, one by one."""
    for pauses in itertools.product([False, True], repeat=len(words) + 1):
        parts: list[tuple[int, int]] = [(0, 1)] * pauses[0]
        for word, pause in zip(words, pauses[1:], strict=True):
            parts += [(INDEX[phone], shortest) for phone in word]
            parts += [(0, 1)] * pause
        for lengths in itertools.product(
            range(1, frames + 1), repeat=len(parts)
        ):
            allowed = all(
                length >= least
                for length, (_, least) in zip(lengths, parts, strict=True)
            )
            if allowed and sum(lengths) == frames:
                yield [
                    label
                    for length, (label, _) in zip(lengths, parts, strict=True)
                    for _ in range(length)
                ]


@pytest.mark.parametrize("shortest", [1, 2])
@pytest.mark.parametrize(
    "words", [[["a"]], [["a", "b"]], [["a"], ["b"]], [["a", "b"], ["a"]]]
)
def test_best_path_is_the_best_of_all(
    words: list[list[str]], shortest: int
) -> None:
    generator = np.random.default_rng(len(words) + shortest)
    for _ in range(5):
        frames = int(generator.integers(6, 8))
        scores = generator.normal(size=(frames, 4)).astype(np.float32)
        path = state_path(words, INDEX, shortest)
        (states,) = best_paths([scores], [path])
        found = path.models[states]
        allowed = list(segmentations(words, frames, shortest))
        rows = np.arange(frames)
        best = max(allowed, key=lambda one: scores[rows, one].sum())
        assert found.tolist() in allowed
        assert scores[rows, found].sum() == pytest.approx(
            scores[rows, best].sum(), abs=1e-5
        )


def test_clips_of_a_batch_do_not_touch_each_other() -> None:
    generator = np.random.default_rng(5)
    words = [[["a"], ["b", "c"]], [["c"]], [["a", "b", "c", "a"], ["b"]]]
    scores = [
        generator.normal(size=(frames, 4)).astype(np.float32)
        for frames in (9, 1, 30)
    ]
    paths = [state_path(clip, INDEX, 1) for clip in words]
    together = best_paths(scores, paths)
    for score, path, states in zip(scores, paths, together, strict=True):
        assert len(states) == len(score)
        np.testing.assert_array_equal(best_paths([score], [path])[0], states)
