"""Selection against a plain sort, on the CPU path and on the device path."""

import warnings

import numpy as np
import pytest
import torch

from s3router.errors import SettingError, VerificationError
from s3router.masks import select_numpy, select_torch
from s3router.masks.rules import Pattern, check_sparsity, removed_count
from s3router.masks.select import Pool, Workspace, select, select_n_of_m

PATHS = ("numpy", "torch")


def reference(arrays: list, removed: int) -> list:
    """Sort by (|score|, position); remove the first; no cleverness."""
    flat = np.concatenate([np.abs(a).reshape(-1) for a in arrays])
    order = np.lexsort((np.arange(flat.size), flat))
    keep = np.ones(flat.size, bool)
    keep[order[:removed]] = False
    cuts = np.cumsum([a.size for a in arrays])[:-1]
    parts = np.split(keep, cuts)
    return [k.reshape(a.shape) for k, a in zip(parts, arrays, strict=True)]


def reference_n_of_m(scores: np.ndarray, n: int, m: int) -> np.ndarray:
    groups = np.abs(scores).reshape(-1, m)
    keep = np.zeros(groups.shape, bool)
    for row, group in enumerate(groups):
        best = sorted(range(m), key=lambda i: (group[i], i))[m - n :]
        keep[row, best] = True
    return keep.reshape(scores.shape)


def run(path: str, arrays: list, removed: int, start: bool = True):
    """Select on one path; return masks and what was reported."""
    masks = [np.full(a.shape, start) for a in arrays]
    if path == "numpy":
        pool = Pool(
            [str(i) for i in range(len(arrays))],
            [torch.from_numpy(a) for a in arrays],
            [torch.from_numpy(m) for m in masks],
            removed,
        )
        return masks, select([pool])[0]
    scores = [torch.from_numpy(a) for a in arrays]
    live = [torch.from_numpy(m) for m in masks]
    if len(arrays) == 1:
        done = select_torch.keep_largest_each(scores, live, [removed])
    else:
        done = select_torch.keep_largest_together(scores, live, removed)
    return masks, done


def draw(shape, seed=0, ties=False):
    values = np.random.default_rng(seed).normal(size=shape)
    if ties:
        values = np.round(values * 2) / 2
    return values.astype(np.float32)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 333), (70001,)])
def test_one_matrix_equals_a_sort(path, ties, sparsity, shape):
    scores = draw(shape, ties=ties)
    removed = removed_count(sparsity, scores.size)
    [mask], [done] = run(path, [scores], removed)
    [expected] = reference([scores], removed)
    assert np.array_equal(mask, expected)
    assert mask.size - mask.sum() == removed == done.removed
    assert done.flipped == removed


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.95])
def test_several_matrices_are_one_ranking(path, ties, sparsity):
    arrays = [
        draw((33, 100), 1, ties),
        draw((50, 7), 2, ties) * 3,
        draw((70001,), 3, ties) / 2,
    ]
    removed = removed_count(sparsity, sum(a.size for a in arrays))
    masks, done = run(path, arrays, removed)
    for mask, expected, one in zip(
        masks, reference(arrays, removed), done, strict=True
    ):
        assert np.array_equal(mask, expected)
        assert one.removed == mask.size - mask.sum()
    assert sum(one.removed for one in done) == removed


@pytest.mark.parametrize("path", PATHS)
def test_a_misleading_sample_does_not_change_the_answer(path):
    # Only what the sample looks at is large, so its bracket misses.
    arrays = [draw((61 * 500,), 4), draw((61 * 300,), 5)]
    for array in arrays:
        array[:: select_numpy.STRIDE] *= 1000
    masks, _ = run(path, arrays, 20000)
    for mask, expected in zip(masks, reference(arrays, 20000), strict=True):
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("several", [False, True])
def test_all_equal_scores_lose_the_first(path, several):
    arrays = [np.ones(1000, np.float32)] * (2 if several else 1)
    masks, _ = run(path, arrays, 300)
    assert not masks[0][:300].any() and masks[0][300:].all()
    assert not several or masks[1].all()


@pytest.mark.parametrize("path", PATHS)
def test_zero_infinity_and_sign(path):
    scores = np.array([-0.0, 0.0, np.inf, -np.inf, -1e-45, 2], np.float32)
    [mask], _ = run(path, [scores], 3)
    assert mask.tolist() == [False, False, True, True, False, True]


@pytest.mark.parametrize("path", PATHS)
def test_everything_can_be_removed(path):
    [mask], [done] = run(path, [draw((10,))], 10)
    assert not mask.any() and done.removed == 10


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("removed", [0, 100, 1000])
@pytest.mark.parametrize("several", [False, True])
def test_nan_is_refused(path, removed, several):
    arrays = [draw((1000,)) for _ in range(2 if several else 1)]
    arrays[-1][500] = np.nan
    with pytest.raises(VerificationError, match="NaN.*learning rate"):
        run(path, arrays, removed)


def test_nan_names_the_matrix_and_leaves_its_mask():
    scores = torch.tensor([1.0, float("nan")])
    mask = torch.tensor([True, True])
    with pytest.raises(VerificationError, match="^fc1: "):
        select([Pool(["fc1"], [scores], [mask], 1)])
    assert mask.all()


@pytest.mark.parametrize("path", PATHS)
def test_flips_are_counted_against_the_old_mask(path):
    scores = draw((70001,))
    old = draw((70001,), 9) > 0
    masks = [old.copy()]
    new = reference([scores], 7000)[0]
    if path == "numpy":
        tensors = [torch.from_numpy(scores)], [torch.from_numpy(masks[0])]
        [[done]] = select([Pool(["w"], *tensors, 7000)])
    else:
        [done] = select_torch.keep_largest_each(
            [torch.from_numpy(scores)], [torch.from_numpy(masks[0])], [7000]
        )
    assert done.flipped == int((old != new).sum())
    assert np.array_equal(masks[0], new)


def test_stacks_of_one_size_are_cut(monkeypatch):
    monkeypatch.setattr(select_torch, "STACK", 250)
    arrays = [draw((10, 10), seed) for seed in range(5)]
    masks = [torch.ones(10, 10, dtype=torch.bool) for _ in arrays]
    counts = [10, 10, 20, 10, 10]
    select_torch.keep_largest_each(
        [torch.from_numpy(a) for a in arrays], masks, counts
    )
    for array, mask, count in zip(arrays, masks, counts, strict=True):
        assert np.array_equal(mask.numpy(), reference([array], count)[0])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n, m", [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
def test_n_of_m_equals_a_sort(path, ties, n, m):
    scores = draw((130, 8 * 67), n, ties)
    mask = np.ones(scores.shape, bool)
    pool = Pool(["w"], [torch.from_numpy(scores)], [torch.from_numpy(mask)], 0)
    if path == "numpy":
        [[done]] = select_n_of_m([pool], Pattern("n:m", n, m))
    else:
        done = select_torch.keep_n_of_m(pool.scores[0], pool.masks[0], n, m)
    assert np.array_equal(mask, reference_n_of_m(scores, n, m))
    assert (mask.reshape(-1, m).sum(1) == n).all()
    assert done == (scores.size * (m - n) // m,) * 2


@pytest.mark.parametrize("path", PATHS)
def test_n_of_m_refuses_nan(path):
    scores = torch.tensor([1.0, float("nan"), 2.0, 3.0])
    mask = torch.ones(4, dtype=torch.bool)
    with pytest.raises(VerificationError):
        if path == "numpy":
            select_n_of_m(
                [Pool(["w"], [scores], [mask], 0)], Pattern.parse("2:4")
            )
        else:
            select_torch.keep_n_of_m(scores, mask, 2, 4)


def test_threads_give_the_same_masks():
    arrays = [draw((200, 50), seed) for seed in range(6)]

    def masks_with(threads: int) -> list:
        masks = [torch.ones(200, 50, dtype=torch.bool) for _ in arrays]
        pools = [
            Pool(["w"], [torch.from_numpy(a)], [m], 1000)
            for a, m in zip(arrays, masks, strict=True)
        ]
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            select(pools, Workspace())
        finally:
            torch.set_num_threads(before)
        return masks

    for one, four in zip(masks_with(1), masks_with(4), strict=True):
        assert torch.equal(one, four)


def test_count_is_rounded_not_cut():
    # int((1 - 0.9) * 1000) is 99: the original keeps one too many.
    assert removed_count(0.1, 1000) == 100
    assert [removed_count(0.3, n) for n in (1, 2, 3, 10)] == [0, 1, 1, 3]


@pytest.mark.parametrize(
    "value", [1, 1.0, -0.1, 2, float("nan"), "0.1", None, True]
)
def test_sparsity_outside_is_refused(value):
    with pytest.raises(SettingError, match=r"\[0, 1\)"):
        check_sparsity(value)


def test_patterns():
    assert Pattern.parse("2:4").sparsity == 0.5
    assert Pattern.parse("structured").sparsity is None
    for text in ("2:2", "0:4", "5:4", "2:128"):
        with pytest.raises(SettingError, match="0 < n < m"):
            Pattern.parse(text)
    for text in ("blocks", "2-4", 124):  # YAML reads 2:4 as 124
        with pytest.raises(SettingError, match="quotes"):
            Pattern.parse(text)


def test_nothing_is_sorted():
    # The point of it all: a sort would cost more than the rest of the step.
    import inspect

    for module in (select_numpy, select_torch):
        source = inspect.getsource(module)
        assert "sort(" not in source and "lexsort" not in source


def test_no_warning_from_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("numpy", [draw((1000,))], 100)
