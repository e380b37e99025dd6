"""Greedy CTC: from logits to token ids to text.

The one place of the rule: training, evaluation and the device use it alike.
numpy only; it knows nothing of audio, sessions or files.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

WORD_START = "▁"


def collapse(frame_ids: ArrayLike, blank: int = 0) -> list[int]:
    """Return the labelling of a CTC path: merge repeats, then drop blanks.

    Source: Graves et al., 2006, Connectionist Temporal Classification,
    section 3.1, the map B.

    Arguments
    ---------
    frame_ids : array_like
        (frames,) int, one token id per frame.
    blank : int
        Id of the blank.

    Returns
    -------
    list of int
        Token ids, without blanks.

    Example
    -------
    >>> collapse([0, 3, 3, 0, 3, 5, 5, 0])
    [3, 3, 5]
    """
    ids = np.asarray(frame_ids, dtype=np.int64).reshape(-1)
    first = np.ones(len(ids), dtype=bool)
    first[1:] = ids[1:] != ids[:-1]
    return ids[first & (ids != blank)].tolist()


def greedy_ctc(logits: ArrayLike, blank: int = 0) -> list[int]:
    """Return the token ids of the best CTC path.

    Arguments
    ---------
    logits : array_like
        (frames, tokens) float: logits or log-probabilities.
    blank : int
        Id of the blank.

    Returns
    -------
    list of int
        Token ids, without blanks and repeats. Of equal logits the lowest id
        wins.

    Raises
    ------
    ValueError
        If `logits` has another number of dimensions than two.

    Example
    -------
    >>> greedy_ctc([[9., 0., 0.], [0., 9., 0.], [0., 9., 0.], [0., 0., 9.]])
    [1, 2]
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(
            f"logits must be (frames, tokens), but their shape is "
            f"{logits.shape}"
        )
    return collapse(logits.argmax(axis=-1), blank)


def join_tokens(
    ids: Sequence[int],
    symbols: Sequence[str],
    special: Sequence[int] = (0, 1),
) -> str:
    """Return the text of token ids.

    Arguments
    ---------
    ids : sequence of int
        Token ids.
    symbols : sequence of str
        The symbol of each id; "▁" in a symbol stands for a space.
    special : sequence of int
        Ids that are never text: blank and unknown.

    Returns
    -------
    str
        The text, with single spaces and none at the ends.

    Example
    -------
    >>> join_tokens([2, 3, 1, 4, 2], ["<blk>", "<unk>", "▁", "a", "b"])
    'ab'
    >>> join_tokens([2, 3, 2], ["<blk>", "<unk>", "▁the", "▁cat"])
    'the cat the'
    """
    text = "".join(symbols[i] for i in ids if i not in special)
    return " ".join(text.replace(WORD_START, " ").split())
