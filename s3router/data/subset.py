"""Draws small labelled sets: minutes of speech, all speakers alike.

The draw hangs on the IDs and the seed alone, not on the order of the rows or
the version of a random generator.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence


def balanced_order(
    speakers: Sequence[tuple[str, str]], seed: int = 0
) -> list[int]:
    """Return an order of clips whose every beginning is speaker-balanced.

    Round by round every speaker gives one clip, until his are used up. A
    longer draw with the same seed therefore holds each shorter one.

    Arguments
    ---------
    speakers : sequence of (str, str)
        ID and speaker of each clip.
    seed : int
        Another seed, another order of clips and of speakers.

    Returns
    -------
    list of int
        All indices, each once.

    Example
    -------
    >>> clips = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")]
    >>> order = balanced_order(clips, seed=0)
    >>> sorted(clips[i][1] for i in order[:2])
    ['a', 'b']
    """
    clips: dict[str, list[int]] = defaultdict(list)
    for i, (_, speaker) in enumerate(speakers):
        clips[speaker].append(i)
    ranked: list[tuple[int, bytes, bytes, int]] = []
    for speaker, indices in clips.items():
        indices.sort(key=lambda i: _hash(seed, "clip", speakers[i][0]))
        for turn, i in enumerate(indices):
            # IDs break a tie of one speaker's rank; hashes do not collide.
            place = _hash(seed, f"turn {turn}", speaker)
            ranked.append((turn, place, speakers[i][0].encode(), i))
    return [i for *_, i in sorted(ranked)]


def _hash(seed: int, what: str, name: str) -> bytes:
    text = f"{seed}\x00{what}\x00{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
