"""The best way through a row of states, of many clips at a time (Viterbi).

A clip's states stand in a row: each may last, and pauses between words may
be left out. Knows scores only, not where they come from.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: The label of frames in which nobody speaks.
SILENCE = ""

#: Words of a clip, each the phones that it is made of.
Words = Sequence[Sequence[str]]

_NEVER = np.float32(-1e30)


class StatePath(NamedTuple):
    """States of a clip from left to right, with a pause around each word.

    `models` (states,) index of what each state sounds like; `loops` (states,)
    bool, the state may last; `pauses` (states,) bool, it may be left out.
    """

    models: np.ndarray
    loops: np.ndarray
    pauses: np.ndarray


def state_path(
    words: Words, index: Mapping[str, int], shortest: int = 1
) -> StatePath:
    """Return the states of a clip.

    Arguments
    ---------
    words : sequence of sequence of str
        Phones by word.
    index : mapping of str to int
        Model of each phone, and of "".
    shortest : int
        Frames that a phone takes, at least.

    Returns
    -------
    StatePath
        A pause may stand before, between and after words.

    Example
    -------
    >>> state_path([["a"]], {"": 0, "a": 1}, shortest=2).models.tolist()
    [0, 1, 1, 0]
    """
    silence = (index[SILENCE], True, True)
    states = [silence]
    for word in words:
        for phone in word:
            states += [(index[phone], False, False)] * (shortest - 1)
            states += [(index[phone], True, False)]
        states += [silence]
    models, loops, pauses = zip(*states, strict=True)
    return StatePath(np.array(models), np.array(loops), np.array(pauses))


def best_paths(
    scores: Sequence[np.ndarray], paths: Sequence[StatePath]
) -> list[np.ndarray]:
    """Return the best sequence of states of each clip.

    Arguments
    ---------
    scores : sequence of numpy.ndarray
        (frames, models) log likelihoods of each clip.
    paths : sequence of StatePath
        Their states. A clip must have as many frames as states that cannot
        be left out.

    Returns
    -------
    list of numpy.ndarray
        (frames,) index of the state.
    """
    longest = max(len(one) for one in scores)
    widest = max(len(path.models) for path in paths)
    batch = len(paths)
    emitted = np.full((longest, batch, widest), _NEVER, np.float32)
    loops = np.full((batch, widest), _NEVER, np.float32)
    jumps = np.full((batch, widest), _NEVER, np.float32)
    start = np.full((batch, widest), _NEVER, np.float32)
    for row, (score, path) in enumerate(zip(scores, paths, strict=True)):
        states = len(path.models)
        emitted[: len(score), row, :states] = score[:, path.models]
        loops[row, :states][path.loops] = 0
        jumps[row, 2:states][path.pauses[1:-1]] = 0
        start[row, :2] = 0
    last = np.array([len(one) - 1 for one in scores])
    back = np.zeros((longest, batch, widest), np.int8)
    ends = best = start + emitted[0]
    for time in range(1, longest):
        best, back[time] = _advance(best, loops, jumps)
        best += emitted[time]
        ends = np.where((last == time)[:, None], best, ends)
    return _trace(back, ends, last, [len(path.models) for path in paths])


def _advance(
    best: np.ndarray, loops: np.ndarray, jumps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best score of coming to each state, and over how many."""
    step = np.full_like(best, _NEVER)
    step[:, 1:] = best[:, :-1]
    jump = np.full_like(best, _NEVER)
    jump[:, 2:] = best[:, :-2]
    came = best + loops
    moved = (step > came).astype(np.int8)
    came = np.maximum(came, step)
    jump += jumps
    moved[jump > came] = 2
    return np.maximum(came, jump), moved


def _trace(
    back: np.ndarray, ends: np.ndarray, last: np.ndarray, states: list[int]
) -> list[np.ndarray]:
    row = np.arange(len(last))
    final = np.array(states) - 1
    # The pause at the end may have been left out.
    state = final - (ends[row, final - 1] > ends[row, final])
    taken = np.zeros((back.shape[0], len(last)), np.int64)
    for time in range(back.shape[0] - 1, -1, -1):
        taken[time] = state
        moved = back[time, row, state]
        state = state - np.where(time <= last, moved, 0)
    return [taken[: end + 1, clip] for clip, end in enumerate(last)]
