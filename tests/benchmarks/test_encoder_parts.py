"""The parts of the encoder benchmark: draws, batches, trials, numbers."""

import doctest
import math
import statistics
from dataclasses import replace

import encoder
import encoder_batches
import encoder_classify
import encoder_data
import numpy as np
import pytest
import torch
from encoder_batches import TrialClips, evaluation_loader, training_batches
from encoder_data import TASKS, PhoneTokens, load_task
from encoder_features import FeatureStore
from encoder_jobs import Cell, Progress
from encoder_layers import frame_states, pooled_states
from encoder_tuning import complete, run_trial
from encoder_workbench import Place
from scipy.stats import t as student

from s3router.errors import DataError, SettingError
from s3router.evaluation.seeds import pool_differences
from s3router.evaluation.significance import PairedDifference
from s3router.methods.head_only import HeadOnly
from s3router.methods.registry import build_method
from s3router.models.encoder import load_encoder
from s3router.models.encoder_key import encoder_key, front_end_key

MODULES = (
    encoder,
    encoder_batches,
    encoder_classify,
    encoder_data,
)
QUICK = {"minutes": 0.2, "steps": 4, "warm_steps": 20, "copies": 1}


@pytest.fixture(scope="module")
def model(small_encoder):
    return load_encoder(str(small_encoder))


@pytest.fixture(scope="module")
def task(tones):
    return load_task("ar_commands", tones / "data")


@pytest.fixture(scope="module")
def features(model, task, tmp_path_factory):
    store = FeatureStore(model, tmp_path_factory.mktemp("features"))
    return {
        "train": store.build("train", task.train, 1, task.train),
        "dev": store.build("dev", task.dev),
        "test": store.build("test", task.test),
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_examples_in_docstrings(module):
    done = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted > 0
    assert done.failed == 0


# -- data -------------------------------------------------------------------


def test_draws_are_balanced_nested_and_differ_by_seed(task):
    short, long = task.draw(0.1, 0), task.draw(0.3, 0)
    assert long[: len(short)] == short
    assert 6 <= sum(c.seconds for c in short) < 6 + 0.8
    counts = [[c.speaker for c in short].count(f"s{i}") for i in range(4)]
    assert max(counts) - min(counts) <= 1
    assert {c.id for c in task.draw(0.1, 1)} != {c.id for c in short}
    assert task.draw(None, 0) == task.train


def test_phones_lose_stress_and_word_boundaries(tones):
    task = load_task("en_speechocean", tones / "data")
    assert {c.text for c in task.train} == {"B AA", "K AA", "D AE B"}
    tokens = task.tokens(task.train)
    assert isinstance(tokens, PhoneTokens)
    assert tokens.symbols[2:] == ["AA", "AE", "B", "D", "K"]
    assert tokens.decode(tokens.encode("D AE B")) == "D AE B"
    assert task.settings.measure == "PER"


def test_minutes_of_the_tasks():
    asked = [10.0, 2.0]
    assert TASKS["ar_commands"].minutes(asked) == [2.0, 10.0]
    assert TASKS["en_speechocean"].minutes(asked) == [10.0]
    assert TASKS["is_samromur"].minutes(asked) == [None]


def test_a_table_without_labels_is_refused(tones, tmp_path):
    folder = tmp_path / "ar_commands"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        rows = "ID,duration,wav,language,speaker,text\na,1,a.wav,ar,s,?\n"
        (folder / f"{split}.csv").write_text(rows)
    with pytest.raises(DataError, match="no labelled clip in train, dev, test"):
        load_task("ar_commands", tmp_path)


# -- features ---------------------------------------------------------------


def test_features_are_those_of_the_front_end(model, task, features):
    from s3router.data.audio import read_audio

    clip = task.test[5]
    expected, _ = model.front_end(read_audio(clip.wav)[None])
    got = features["test"].of(clip.id)
    torch.testing.assert_close(
        got.float(), expected[0].detach(), rtol=2e-3, atol=2e-3
    )
    copy = features["train"].of(task.train[0].id, 1)
    clean = features["train"].of(task.train[0].id, 0)
    assert copy.shape != clean.shape or not torch.equal(copy, clean)


def test_features_are_computed_once_and_hang_on_the_front_end(
    model, task, tmp_path, small_encoder
):
    store = FeatureStore(model, tmp_path)
    store.build("dev", task.dev)
    (path,) = tmp_path.rglob("*.f16")
    before = path.stat().st_mtime_ns
    store.build("dev", task.dev)
    assert path.stat().st_mtime_ns == before
    store.build("dev", task.dev, crop=0.3)
    assert len(list(tmp_path.rglob("*.f16"))) == 2

    other = load_encoder(str(small_encoder))
    with torch.no_grad():
        other.model.encoder.layers[0].attention.q_proj.bias.add_(1)
    assert front_end_key(other) == front_end_key(model)
    assert encoder_key(other) != encoder_key(model)
    with torch.no_grad():
        other.model.feature_extractor.conv_layers[3].conv.weight.add_(1)
    assert front_end_key(other) != front_end_key(model)


def test_states_by_layer_are_those_of_single_clips(model, task, features):
    clips = task.dev[:7]
    pooled = pooled_states(model, features["dev"], clips)
    layers = dict(frame_states(model, [(features["dev"], clips)], None))
    assert sorted(layers) == [0, 1, 2]
    for i, clip in enumerate(clips):
        alone = features["dev"].of(clip.id).float()[None]
        with torch.no_grad():
            states = model.hidden_states(alone, torch.tensor([alone.shape[1]]))
        for layer, state in enumerate(states):
            np.testing.assert_allclose(
                pooled[layer, i], state[0].mean(0).numpy(), atol=1e-4
            )
            kept = layers[layer][0][i]
            assert (kept.float() - state[0]).abs().max() < 5e-3


# -- batches ----------------------------------------------------------------


def test_batches_are_full_of_like_lengths_and_use_every_clip():
    seconds = np.random.default_rng(0).uniform(0.5, 4.0, 200).tolist()
    batches = list(training_batches(seconds, 300, 12.0, 4, seed=1))
    assert len(batches) == 300
    sums = [sum(seconds[i] for i, _ in batch) for batch in batches]
    assert max(sums) <= 12.0
    assert statistics.fmean(sums) > 9.0
    padded = [max(seconds[i] for i, _ in b) * len(b) for b in batches]
    assert sum(sums) / sum(padded) > 0.75
    uses = np.bincount([i for batch in batches for i, _ in batch])
    assert uses.min() > 0
    assert uses.max() - uses.min() <= 2


def test_clean_clips_and_copies_are_as_likely():
    batches = training_batches([1.0] * 50, 200, 10.0, 4, seed=0)
    copies = np.bincount([copy for batch in batches for _, copy in batch])
    assert copies.sum() == 2000
    assert len(copies) == 5
    # Five standard deviations of a binomial with probability 1/5.
    assert abs(copies - 400).max() < 5 * math.sqrt(2000 * 0.2 * 0.8)


def test_seed_decides_the_batches():
    def drawn(seed: int) -> list:
        return list(training_batches([1.0] * 9, 5, 3.0, 1, seed))

    assert drawn(3) == drawn(3) != drawn(4)


def test_evaluation_sees_every_clip_once_and_clean(task, features):
    clips = TrialClips(task.dev, task.tokens(task.train), features["dev"])
    seen = [uid for batch in evaluation_loader(clips, 3.0) for uid in batch.id]
    assert sorted(seen) == sorted(c.id for c in task.dev)


# -- trials -----------------------------------------------------------------


def test_a_trial_scores_dev_and_seals_test(model, task, features):
    before = encoder_key(model)
    trial = {**QUICK, "task": task.name, "method": "full", "rate": 1e-3}
    result = run_trial(trial, model, task, features)
    assert result["dev"]["utterances"] == len(task.dev)
    assert set(result["test"]) == {"references", "hypotheses"}
    assert result["test"]["references"] == [c.text for c in task.test]
    assert len(result["test"]["hypotheses"]) == len(task.test)
    assert encoder_key(model) == before, "the encoder was changed"


def test_a_study_can_bring_settings_and_methods(model, task, features):
    fixed = {
        "targets": "feed_forward",
        "sparsity": 0.25,
        "init": "kaiming_uniform",
        "seed": 5,
    }
    trial = {**QUICK, "task": task.name, "settings": fixed, "rate": 0.0}
    made = []

    def build(name, **settings):
        made.append(build_method(name, **settings))
        return made[-1]

    result = run_trial(trial, model, task, features, build=build)
    assert result["removed"] == 0.25
    assert result["method"]["init"] == "kaiming_uniform"
    again = build_method("mask_tuning", **fixed)
    again.prepare(load_encoder(model.name).model)
    # A rate of 0 keeps the random mask: a control.
    for name, mask in again.masks().items():
        assert torch.equal(mask, made[0].masks()[name])

    class Other(HeadOnly):
        name = "other"

    result = run_trial(
        {**trial, "method": "other", "settings": {}, "rate": 1e-2},
        model,
        task,
        features,
        build=lambda name, seed: Other(),
    )
    assert result["method"] == {"method": "other"}
    assert result["stored_bytes"] == 0


def test_a_trial_that_diverges_counts_as_silence(model, task, features):
    trial = {**QUICK, "task": task.name, "method": "full", "rate": math.inf}
    result = run_trial(trial, model, task, features)
    assert result["dev"]["rate"] == 1.0
    assert result["dev"]["deletions"] == result["dev"]["total"]


def test_an_unknown_key_of_a_trial_is_refused():
    with pytest.raises(SettingError, match="did you mean 'minutes'"):
        complete({"minute": 2})
    assert complete({"precision": "fp32"})["precision"] == "fp32"


# -- choice and report ------------------------------------------------------


def test_the_rate_is_chosen_on_dev():
    base = {"task": "ar_commands", "minutes": 2.0, "method": "full"}
    cell = Cell(Place("e", "d", "w"), base, (0.1, 0.2, 0.3), (0, 1))
    searches = cell.searches()
    assert [t["rate"] for t in searches] == [0.1, 0.2, 0.3]
    assert {t["seed"] for t in searches} == {0}
    results = {r: {"dev": {"rate": r == 0.1}} for r in cell.rates}
    following = [cell.add(t, results[t["rate"]]) for t in searches]
    assert following[:2] == [[], []]
    assert [(t["rate"], t["seed"]) for t in following[2]] == [(0.2, 1)]
    other = {"dev": {"rate": 0.3}}
    assert cell.add(following[2][0], other) == []
    # The search of the chosen rate is the first seed's result.
    assert cell.final == {0: results[0.2], 1: other}
    assert cell.final[0] is results[0.2]
    assert cell.trials == 4


def test_differences_of_seeds_are_pooled_by_the_law_of_total_variance():
    one = PairedDifference(-0.10, -0.14, -0.06, 1.0, 9, 9)
    others = [replace(one, difference=d) for d in (-0.04, -0.07)]
    pooled = pool_differences([one, *others])
    assert pooled.difference == pytest.approx(-0.07)
    sampling = 0.04 / 1.96
    between = statistics.stdev([-0.10, -0.04, -0.07])
    variance = sampling**2 + between**2 / 3
    freedom = 2 * (variance / (between**2 / 3)) ** 2
    half = student.ppf(0.975, freedom) * math.sqrt(variance)
    assert pooled.high == pytest.approx(-0.07 + half)
    assert pooled.low == pytest.approx(-0.07 - half)
    assert pooled.significant


def test_accuracy_has_the_interval_of_a_share():
    right = np.arange(400) % 5 != 0
    found = encoder_classify.accuracy(right, None)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert found["rate"] == 0.8
    assert found["low"] == pytest.approx(0.8 - half, abs=0.005)
    # Speakers who are always right or always wrong: as many as 20 clips.
    alike = np.repeat(np.arange(20) % 5 != 0, 20)
    wider = encoder_classify.accuracy(alike, np.repeat(np.arange(20), 20))
    half = 1.96 * math.sqrt(0.8 * 0.2 / 20)
    assert wider["low"] == pytest.approx(0.8 - half, abs=0.03)
    assert wider["drawn"] == "speakers"


def test_what_is_left_is_told_by_what_was_not_kept(capsys, monkeypatch):
    clock = iter([0.0, 120.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    progress = Progress(5, jobs=1)
    for made in (False, True):
        progress.finish("a trial", made)
    kept, trained = capsys.readouterr().out.splitlines()
    assert kept == "[1/5] a trial"
    # One took two minutes, three more are to come.
    assert trained == "[2/5] a trial; about 6 min left"
