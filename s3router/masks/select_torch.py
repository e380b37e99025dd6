"""Turn scores into masks with torch operations: for CUDA, and any device.

The same rule as `s3router.masks.select_numpy`, to the last tie. The k-th
value comes from `torch.kthvalue`, a radix select on CUDA, never from a sort.
Matrices of one size go through it together, since it gives one thread block
to each; matrices ranked together are first narrowed to a bracket around the
threshold, since one block alone would take long over a whole model.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from s3router.errors import VerificationError
from s3router.masks.select_numpy import STRIDE, Selected

#: Entries in one stack of matrices of the same size (256 MB of float32).
STACK = 1 << 26


def keep_largest_each(
    scores: Sequence[Tensor],
    masks: Sequence[Tensor],
    removed: Sequence[int],
) -> list[Selected]:
    """Keep the entries with the largest |score| of each matrix.

    Arguments
    ---------
    scores : sequence of torch.Tensor
        float32 or bfloat16, on one device.
    masks : sequence of torch.Tensor
        bool, of the same sizes; overwritten.
    removed : sequence of int
        How many entries of each become False, exactly.

    Returns
    -------
    list of Selected
        For each mask.

    Raises
    ------
    VerificationError
        If a score is NaN.

    Example
    -------
    >>> mask = torch.zeros(4, dtype=torch.bool)
    >>> keep_largest_each([torch.tensor([1.0, -3, 2, 1])], [mask], [1])
    [Selected(flipped=3, removed=1)]
    >>> mask.tolist()
    [False, True, True, True]
    """
    alike = defaultdict(list)
    for index, (each, count) in enumerate(zip(scores, removed, strict=True)):
        alike[each.numel(), count].append(index)
    done: dict[int, Tensor] = {}
    for (size, count), members in alike.items():
        at_once = max(1, STACK // max(1, size))
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            stack = torch.stack([scores[i].reshape(-1) for i in part])
            stack = stack.float().abs_()
            keep = _keep_rows(stack, count)
            for i, row in zip(part, keep, strict=True):
                done[i] = _exchange(masks[i], row)
    return _fetch([done[i] for i in range(len(done))])


def keep_largest_together(
    scores: Sequence[Tensor], masks: Sequence[Tensor], removed: int
) -> list[Selected]:
    """Keep the entries with the largest |score| of all matrices together.

    Arguments
    ---------
    scores : sequence of torch.Tensor
        float32 or bfloat16, on one device.
    masks : sequence of torch.Tensor
        bool, of the same sizes; overwritten.
    removed : int
        How many entries of all together become False, exactly.

    Returns
    -------
    list of Selected
        For each mask.

    Raises
    ------
    VerificationError
        If a score is NaN.
    """
    flat = [each.reshape(-1).float() for each in scores]
    for each in flat:
        _refuse_nan(each)
    threshold, ties_kept = _threshold_of_many(flat, removed)
    done = []
    for each, mask in zip(reversed(flat), reversed(masks), strict=True):
        magnitude = each.abs()
        keep = magnitude > threshold
        if ties_kept:
            ties = (magnitude == threshold).nonzero()[-ties_kept:, 0]
            keep[ties] = True
            ties_kept -= ties.numel()
        done.append(_exchange(mask, keep))
    return _fetch(done[::-1])


def keep_n_of_m(scores: Tensor, mask: Tensor, n: int, m: int) -> Selected:
    """Keep the n largest |score| in each group of m consecutive entries.

    Arguments
    ---------
    scores : torch.Tensor
        float32 or bfloat16, the last dimension a multiple of m.
    mask : torch.Tensor
        bool, of the same shape; overwritten.
    n, m : int
        Entries kept, entries in a group.

    Returns
    -------
    Selected
        What changed.

    Raises
    ------
    VerificationError
        If a score is NaN.
    """
    _refuse_nan(scores)
    columns = scores.reshape(-1, m).abs().t().contiguous()
    better = torch.zeros_like(columns, dtype=torch.uint8)
    for i in range(m):
        for j in range(i + 1, m):
            later = columns[j] >= columns[i]
            better[i] += later
            better[j] += ~later
    return _fetch([_exchange(mask, (better < n).t().reshape(-1))])[0]


def keep_positive(
    scores: Sequence[Tensor], masks: Sequence[Tensor]
) -> list[Selected]:
    """Keep the entries whose score is above 0.

    Arguments
    ---------
    scores : sequence of torch.Tensor
        float32 or bfloat16, on one device.
    masks : sequence of torch.Tensor
        bool, of the same sizes; overwritten.

    Returns
    -------
    list of Selected
        For each mask.

    Raises
    ------
    VerificationError
        If a score is NaN.
    """
    for each in scores:
        _refuse_nan(each)
    return _fetch(
        [
            _exchange(mask, (each > 0).view(-1))
            for each, mask in zip(scores, masks, strict=True)
        ]
    )


def _keep_rows(magnitude: Tensor, removed: int) -> Tensor:
    """Return the mask of each row of (rows, entries) magnitudes, bool."""
    rows, size = magnitude.shape
    if removed == 0:
        _refuse_nan(magnitude)
        return torch.ones_like(magnitude, dtype=torch.bool)
    threshold = torch.kthvalue(magnitude, removed, dim=1, keepdim=True).values
    keep = magnitude > threshold
    lacking = size - removed - keep.sum(dim=1)
    # The one wait for the device; ties and NaN are rare.
    for row, count in enumerate(lacking.tolist()):
        if not count and removed < size:
            continue
        _refuse_nan(magnitude[row])
        if count:
            ties = (magnitude[row] == threshold[row]).nonzero()[-count:, 0]
            keep[row, ties] = True
    return keep


def _threshold_of_many(
    scores: Sequence[Tensor], removed: int
) -> tuple[Tensor | float, int]:
    """Return the largest removed value and how many equal ones stay."""
    if removed == 0:
        return -1.0, 0
    low, high = _bracket(scores, removed)
    below, inside = _split(scores, low, high)
    if not below < removed <= below + inside.numel():
        everything = torch.full_like(low, torch.inf)
        below, inside = _split(scores, torch.zeros_like(low), everything)
    rank = removed - below
    threshold = torch.kthvalue(inside, rank).values
    return threshold, int((inside <= threshold).sum()) - rank


def _bracket(scores: Sequence[Tensor], removed: int) -> tuple[Tensor, Tensor]:
    """Return two values that very likely enclose the one of this rank."""
    sample = torch.cat([each[::STRIDE] for each in scores]).abs()
    share = removed / sum(each.numel() for each in scores)
    middle = share * sample.numel()
    reach = 6 * (middle * (1 - share)) ** 0.5 + 2
    first = max(1, int(middle - reach))
    last = min(sample.numel(), int(middle + reach))
    return (
        torch.kthvalue(sample, first).values,
        torch.kthvalue(sample, last).values,
    )


def _split(
    scores: Sequence[Tensor], low: Tensor, high: Tensor
) -> tuple[int, Tensor]:
    """Return how many lie below `low`, and those from `low` to `high`."""
    below = torch.zeros((), dtype=torch.int64, device=low.device)
    inside = []
    for each in scores:
        magnitude = each.abs()
        below += (magnitude < low).sum()
        inside.append(magnitude[(magnitude >= low) & (magnitude <= high)])
    return int(below), torch.cat(inside)


def _refuse_nan(values: Tensor) -> None:
    if bool(torch.isnan(values).any()):
        raise VerificationError(
            "a score is NaN, so no mask can be selected: training diverged; "
            "lower the learning rate of the scores"
        )


def _exchange(mask: Tensor, keep: Tensor) -> Tensor:
    """Write `keep` into `mask`; return flipped and removed, not yet waited."""
    flat = mask.view(-1)
    counts = torch.stack([(flat != keep).sum(), (~keep).sum()])
    flat.copy_(keep)
    return counts


def _fetch(counts: Sequence[Tensor]) -> list[Selected]:
    """Wait for the device once and return the numbers."""
    if not counts:
        return []
    return [Selected(*pair) for pair in torch.stack(list(counts)).tolist()]
