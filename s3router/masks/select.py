"""The rule that turns scores into masks, and who carries it out.

An exact number of entries, `round(sparsity * n)`, is removed: those with the
smallest |score|, and among equal ones the first in memory order (and of the
first matrix, where several are ranked together). Scores on the CPU go through
numpy (`select_numpy`), others through torch (`select_torch`); both give the
same mask to the last tie, so a run can move between devices. The rule
`positive` ranks nothing: it keeps what is above 0, however much that is.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from s3router.errors import VerificationError
from s3router.masks import select_numpy, select_torch
from s3router.masks.rules import Pattern
from s3router.masks.select_numpy import Scratch, Selected


@dataclass
class Pool:
    """Score tensors that are ranked together, and the masks they make.

    Arguments
    ---------
    names : list of str
        What the tensors are called, for messages.
    scores : list of torch.Tensor
        float32 or bfloat16, and contiguous, any shape.
    masks : list of torch.Tensor
        bool and contiguous, of the same shapes; overwritten in place.
    removed : int
        How many entries of all together become False, exactly.
    """

    names: list[str]
    scores: list[Tensor]
    masks: list[Tensor]
    removed: int


class Workspace:
    """Memory that one router's selections on the CPU reuse, by thread.

    Without it every refresh would ask the system for fresh pages, which
    takes as long as the selection itself.
    """

    def __init__(self) -> None:
        self._scratches: list[Scratch] = []

    def scratches(self, count: int) -> list[Scratch]:
        """Return this many, the same as last time."""
        while len(self._scratches) < count:
            self._scratches.append(Scratch())
        return self._scratches[:count]


def select(
    pools: Sequence[Pool], workspace: Workspace | None = None
) -> list[list[Selected]]:
    """Overwrite the masks of all pools by what their scores say.

    Arguments
    ---------
    pools : sequence of Pool
        All on one device.
    workspace : Workspace or None
        Memory to reuse.

    Returns
    -------
    list of list of Selected
        For each pool and each of its masks: entries flipped, and removed.

    Raises
    ------
    VerificationError
        If a score is NaN.

    Example
    -------
    >>> scores = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    >>> mask = torch.ones(2, 2, dtype=torch.bool)
    >>> select([Pool(["w"], [scores], [mask], 2)])
    [[Selected(flipped=2, removed=2)]]
    >>> mask
    tensor([[ True, False],
            [False,  True]])
    """
    if all(pool.scores[0].device.type == "cpu" for pool in pools):
        return _by_thread(pools, _select_numpy, workspace)
    return _select_torch(pools)


def select_n_of_m(
    pools: Sequence[Pool],
    pattern: Pattern,
    workspace: Workspace | None = None,
) -> list[list[Selected]]:
    """Do the same with the n largest of each m inputs, see `select`.

    Arguments
    ---------
    pools : sequence of Pool
        Their `removed` is not used; the last dimension of each tensor is a
        multiple of m.
    pattern : Pattern
        The n and m.
    workspace : Workspace or None
        Memory to reuse.

    Returns
    -------
    list of list of Selected
        For each pool and each of its masks: entries flipped, and removed.

    Raises
    ------
    VerificationError
        If a score is NaN.
    """

    def numpy_one(pool: Pool, scratch: Scratch) -> list[Selected]:
        return [
            select_numpy.keep_n_of_m(
                _flat(score), _flat(mask), pattern.n, pattern.m, scratch
            )
            for score, mask in zip(pool.scores, pool.masks, strict=True)
        ]

    if all(pool.scores[0].device.type == "cpu" for pool in pools):
        return _by_thread(pools, numpy_one, workspace)
    return [
        [
            select_torch.keep_n_of_m(score.detach(), mask, pattern.n, pattern.m)
            for score, mask in zip(pool.scores, pool.masks, strict=True)
        ]
        for pool in pools
    ]


def select_positive(pools: Sequence[Pool]) -> list[list[Selected]]:
    """Keep the entries with positive scores; no share is asked for.

    Arguments
    ---------
    pools : sequence of Pool
        Their `removed` is not used.

    Returns
    -------
    list of list of Selected
        For each pool and each of its masks: entries flipped, and removed.

    Raises
    ------
    VerificationError
        If a score is NaN.

    Example
    -------
    >>> scores = torch.tensor([[3.0, -1.0], [0.0, 2.0]])
    >>> mask = torch.ones(2, 2, dtype=torch.bool)
    >>> select_positive([Pool(["w"], [scores], [mask], 0)])
    [[Selected(flipped=2, removed=2)]]
    """
    done = []
    for pool in pools:
        scores = [score.detach() for score in pool.scores]
        with _naming(pool):
            done.append(select_torch.keep_positive(scores, pool.masks))
    return done


@contextmanager
def _naming(pool: Pool) -> Iterator[None]:
    """Say in an error which matrix it is about."""
    try:
        yield
    except VerificationError as error:
        raise VerificationError(f"{pool.names[0]}: {error}") from error


def _flat(tensor: Tensor) -> np.ndarray:
    """Return the memory of a CPU tensor as a numpy array of one dimension.

    numpy has no bfloat16: of such a tensor, a copy as float32.
    """
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.detach().view(-1).numpy()


def _select_numpy(pool: Pool, scratch: Scratch) -> list[Selected]:
    return select_numpy.keep_largest(
        [_flat(score) for score in pool.scores],
        [_flat(mask) for mask in pool.masks],
        pool.removed,
        scratch,
    )


def _select_torch(pools: Sequence[Pool]) -> list[list[Selected]]:
    done: list[list[Selected]] = [[] for _ in pools]
    alone = [i for i, pool in enumerate(pools) if len(pool.scores) == 1]
    each = select_torch.keep_largest_each(
        [pools[i].scores[0].detach() for i in alone],
        [pools[i].masks[0] for i in alone],
        [pools[i].removed for i in alone],
    )
    for i, selected in zip(alone, each, strict=True):
        done[i] = [selected]
    for i, pool in enumerate(pools):
        if len(pool.scores) > 1:
            done[i] = select_torch.keep_largest_together(
                [score.detach() for score in pool.scores],
                pool.masks,
                pool.removed,
            )
    return done


def _by_thread(
    pools: Sequence[Pool],
    work: Callable[[Pool, Scratch], list[Selected]],
    workspace: Workspace | None,
) -> list[list[Selected]]:
    """Run `work(pool, scratch)` for each pool, on torch's number of threads.

    numpy itself uses one core; the matrices are independent of each other.
    """

    def named(pool: Pool, scratch: Scratch) -> list[Selected]:
        with _naming(pool):
            return work(pool, scratch)

    threads = max(1, min(torch.get_num_threads(), len(pools)))
    scratches = (workspace or Workspace()).scratches(threads)
    if threads == 1:
        return [named(pool, scratches[0]) for pool in pools]
    spare: SimpleQueue[Scratch] = SimpleQueue()
    for scratch in scratches:
        spare.put(scratch)

    def borrowed(pool: Pool) -> list[Selected]:
        scratch = spare.get()
        try:
            return named(pool, scratch)
        finally:
            spare.put(scratch)

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(borrowed, pools))
