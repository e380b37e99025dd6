"""Seeds into rows: what is pooled, and what must never be."""

import random
import statistics

import pytest
from scipy.stats import t as student

from s3router.errors import DataError, FormatError
from s3router.evaluation.aggregate import (
    QUICKSTART_COLUMNS,
    RECIPE_COLUMNS,
    as_rate,
    quickstart_rows,
    recipe_rows,
)
from s3router.evaluation.error_rates import ErrorRate, error_rate
from s3router.evaluation.seeds import pool_seeds


def rate(value, half=0.05, total=1000):
    """Return a rate with an even interval."""
    errors = round(value * total)
    return ErrorRate(
        value, value - half, value + half, errors, total, 100, "char"
    )


def result(seed=1, cer=0.2, config=None, **extra):
    """Return a result as the recipe writes it."""
    return {
        "seed": seed,
        "config": {
            "encoder": "tiny",
            "data_folder": "../data/cv",
            "output_folder": f"results/{seed}",
            "seed": seed,
            "lr": 0.1,
            **(config or {}),
        },
        "metrics": {"dev_cer": 0.25, "test_cer": rate(cer), "test_wer": None},
        "extra": {
            "language": "zh",
            "method": "mask_tuning",
            "sparsity": 0.5,
            "labelled_minutes": 2.04,
            "trainable_parameters": 1_234_567,
            "subnetwork_bytes": 432_100,
            **extra,
        },
        "command": f"python train.py --seed={seed}",
    }


def test_one_seed_stays_as_it_is():
    assert pool_seeds([rate(0.2)]) == rate(0.2)


def test_equal_seeds_keep_the_interval_of_the_test_set():
    pooled = pool_seeds([rate(0.2)] * 4)
    assert pooled.rate == pytest.approx(0.2)
    assert pooled.low == pytest.approx(0.15)
    assert pooled.high == pytest.approx(0.25)


def test_seed_variance_is_added():
    values = [0.1, 0.2, 0.3]
    pooled = pool_seeds([rate(v) for v in values])
    training = statistics.variance(values) / 3
    variance = (0.05 / 1.96) ** 2 + training
    freedom = 2 * (variance / training) ** 2
    quantile = student.ppf(0.975, freedom)
    assert 1.96 < quantile < student.ppf(0.975, 2)
    assert pooled.high - 0.2 == pytest.approx(quantile * variance**0.5)
    assert (pooled.errors, pooled.total) == (600, 3000)
    assert pooled.utterances == 100


def test_pooled_interval_covers_the_truth():
    # Truth: the mean over both seeds and test sets.
    draw = random.Random(0)
    hits = 0
    for _ in range(150):
        hard = [draw.gauss(0.3, 0.2) for _ in range(60)]
        rates = []
        for _ in range(3):
            shift = draw.gauss(0, 0.03)
            hyps = [
                "b" if draw.random() < min(1, max(0, h + shift)) else "a"
                for h in hard
            ]
            rates.append(error_rate(["a"] * 60, hyps, "word", replicates=200))
        pooled = pool_seeds(rates)
        # E[clip(N(0.3, 0.2), 0, 1)] is 0.3 and a little (0.306).
        hits += pooled.low <= 0.306 <= pooled.high
    assert hits >= 138


@pytest.mark.parametrize("ratio", [0.1, 0.3, 1.0, 3.0])
def test_pooled_interval_holds_where_few_seeds_differ_much(ratio):
    """`ratio` is the test set's deviation, of the seeds' mean's."""
    draw, hits = random.Random(1), 0
    sampling = 0.03 * ratio / 3**0.5
    for _ in range(2000):
        shared = draw.gauss(0.5, sampling)
        pooled = pool_seeds(
            [
                rate(shared + draw.gauss(0, 0.03), 1.96 * sampling)
                for _ in range(3)
            ]
        )
        hits += pooled.low <= 0.5 <= pooled.high
    assert 0.91 <= hits / 2000 <= 0.98


def test_seeds_of_other_test_sets_are_refused():
    with pytest.raises(DataError, match="different sets"):
        pool_seeds([rate(0.1), rate(0.1, total=999)])


def test_no_interval_if_one_has_none():
    bare = ErrorRate(0.1, None, None, 100, 1000, 100, "char")
    assert pool_seeds([bare, rate(0.3)]).high is None


def test_seeds_become_one_row():
    (row,) = recipe_rows([result(2, 0.3), result(1, 0.1)])
    assert set(RECIPE_COLUMNS) <= set(row)
    assert row["seeds"] == "1, 2"
    assert row["test_cer"].startswith("20.0 [")
    assert row["command"].endswith("--seed=1")
    assert row["dev_cer"] == "25.0" and row["test_wer"] is None
    assert row["data"] == "cv" and row["minutes"] == "2.0"
    assert row["parameters"] == "1,234,567" and row["bytes"] == "432.1 kB"
    assert row["sparsity"] == "50%" and "note" not in row


def test_methods_and_languages_are_rows_of_their_own():
    rows = recipe_rows(
        [
            result(1, method="full", sparsity=0.0),
            result(1, language="es"),
            result(1),
            result(1, config={"encoder": "facebook/hubert-base-ls960"}),
        ]
    )
    names = [(r["language"], r["encoder"], r["method"]) for r in rows]
    assert names == [
        ("es", "tiny", "mask_tuning"),
        ("zh", "facebook/hubert-base-ls960", "mask_tuning"),
        ("zh", "tiny", "full"),
        ("zh", "tiny", "mask_tuning"),
    ]


@pytest.mark.parametrize(
    ("encoder", "shown"),
    [
        ("owner/name", "owner/name"),
        (".../untrained", "untrained"),
        ("runs/pretrain/encoder", "encoder"),
    ],
)
def test_an_encoders_folder_is_not_shown(encoder, shown):
    rows = recipe_rows([result(1, config={"encoder": encoder})])
    assert rows[0]["encoder"] == shown


def test_a_setting_that_came_later_splits_only_where_it_differs():
    before, after = result(1), result(2, config={"mask_rule": "top"})
    (row,) = recipe_rows([before, after])
    assert row["seeds"] == "1, 2"
    free = result(3, config={"mask_rule": "positive"})
    notes = [row["note"] for row in recipe_rows([before, after, free])]
    assert sorted(notes) == ["mask_rule=positive", "mask_rule=top"]


def test_rates_of_what_a_method_does_not_train_split_no_row():
    def at(seed, method, scores, head=2e-3):
        rates = {"scores": scores, "head": head}
        config = {"lr_scores": scores, "learning_rates": rates}
        return result(seed, config=config, method=method)

    (row,) = recipe_rows([at(1, "full", 1e-2), at(2, "full", 1e-3)])
    assert row["seeds"] == "1, 2"
    assert len(recipe_rows([at(1, "full", 1e-2), at(2, "full", 1e-2, 1)])) == 2
    # A method that is not known may use any of them.
    for method in ("mask_tuning", "one of ours"):
        assert len(recipe_rows([at(1, method, 1e-2), at(2, method, 1e-3)])) == 2


def test_an_unset_setting_is_as_good_as_none():
    rows = recipe_rows([result(1), result(2, config={"settings_for": None})])
    assert len(rows) == 1 and rows[0]["seeds"] == "1, 2"


def test_settings_that_no_column_shows_are_not_pooled():
    rows = recipe_rows([result(1), result(2), result(1, config={"lr": 0.5})])
    assert [row["seeds"] for row in rows] == ["1, 2", "1"]
    assert [row["note"] for row in rows] == ["lr=0.1", "lr=0.5"]


def test_the_same_seed_twice_is_an_error():
    with pytest.raises(DataError, match="same setting and seed"):
        recipe_rows([result(1), result(1)])


def test_quickstart_rows_take_rates_and_their_json():
    run = {
        "language": "zh",
        "method": "mask_tuning",
        "sparsity": 0.5,
        "cer": rate(0.2),
        "wer": None,
        "subnetwork_bytes": 500_000,
        "onnx_bytes": 9_000_000,
        "real_time_factor": 0.0123,
        "agrees": True,
    }
    as_json = {**run, "cer": dict(vars(rate(0.2)))}
    first, second = quickstart_rows([run, as_json])
    assert first == second
    assert list(first) == list(QUICKSTART_COLUMNS)
    assert first["cer"] == "20.0 [15.0, 25.0]"
    assert first["real_time_factor"] == "0.012"


def test_rates_of_a_result():
    assert as_rate(None) is None
    assert str(as_rate(0.25)) == "25.0"
    with pytest.raises(FormatError, match="not an error rate"):
        as_rate({"rate": 0.1})
    with pytest.raises(FormatError, match="not an error rate"):
        as_rate("0.1")
