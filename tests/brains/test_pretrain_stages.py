"""The stages on features that are notes: they learn, stop, and go on."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import speechbrain as sb
import torch
from pretrain_toys import settings, small_encoder, tones
from safetensors.torch import load_file

from s3router.brains import pretrain
from s3router.brains.pretrain_contrastive import ContrastiveBrain
from s3router.brains.pretrain_stages import (
    run_contrastive,
    run_iteration,
    stage_brain,
)
from s3router.brains.pretrain_warm_up import warm_up
from s3router.errors import MismatchError, SettingError
from s3router.formats.files import read_json
from s3router.models.filterbank import SHORTEST_KERNEL, gabor_filters
from s3router.models.frame_grid import FrameGrid

QUIET = {"device": "cpu", "noprogressbar": True}


def run(
    folder, objective="hubert", run_opts=None, encoder_changes=None, **changes
):
    """Run one stage on tones; return its curve and its network."""
    folder.mkdir(exist_ok=True)
    versions, pool, units = tones(folder)
    hparams = settings(folder, objective=objective, **changes)
    encoder = small_encoder(objective, **(encoder_changes or {}))
    options = {**QUIET, **(run_opts or {})}
    if objective == "hubert":
        model = run_iteration(
            1, encoder, pool, versions, units, hparams, options
        )
        name = "iteration_1"
    else:
        model = run_contrastive(encoder, pool, versions, hparams, options)
        name = "contrastive"
    return read_json(folder / "curves" / f"{name}.json")["entries"], model


def test_wav2vec2_learns_to_tell_notes_apart(tmp_path):
    contrastive = {**settings(tmp_path)["contrastive"], "epochs": 4}
    curve, _ = run(
        tmp_path, "wav2vec2", contrastive=contrastive, epoch_steps=25
    )
    losses = [entry["valid_contrastive_loss"] for entry in curve]
    assert losses[-1] < losses[0] - 0.2
    last = curve[-1]
    assert last["step"] == 100
    # A note that comes twice is one code: distractors of it are left out.
    chance = last["valid_contrastive_chance"]
    assert 0.09 < chance < 0.5
    assert last["valid_contrastive_accuracy"] > 1.5 * chance
    assert 2 < last["valid_code_perplexity"] <= 16
    assert 0.3 < last["valid_masked_share"] < 0.6


def test_hubert_learns_the_notes(tmp_path):
    curve, _ = run(
        tmp_path,
        iterations=[{"units": 6, "epochs": 3, "of": "mfcc"}],
        epoch_steps=30,
    )
    assert curve[-1]["valid_unmasked_accuracy"] > 0.9
    assert curve[-1]["valid_masked_accuracy"] > 1.2 / 6
    hours = 30 * 8 / 3600
    assert curve[-1]["train_hours"] == pytest.approx(hours, rel=0.1)


OBJECTIVES = ["hubert", "wav2vec2"]


@pytest.fixture(scope="module", params=OBJECTIVES)
def whole(request, tmp_path_factory):
    """An uninterrupted stage: objective, folder, curve, network."""
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    return request.param, folder, *run(folder, request.param)


def run_until(stop, interval, *args, **options):
    """Run as `run`, with checkpoints, and die behind step `stop`."""
    step = pretrain.PretrainBrain.on_fit_batch_start

    def stopped(brain, *args):
        if brain.optimizer_step == stop:
            raise KeyboardInterrupt
        step(brain, *args)

    often = {"ckpt_interval_steps": interval, "ckpt_interval_minutes": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain.PretrainBrain, "on_fit_batch_start", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(*args, run_opts=often, **options)
    # What is drawn in between must not matter.
    torch.manual_seed(99)


@pytest.mark.parametrize(
    ("stop", "interval"),
    # Before any checkpoint; behind one; at an epoch's end; in the second.
    [(1, 2), (7, 3), (10, 4), (13, 3)],
)
def test_a_stopped_stage_ends_as_an_uninterrupted_one(
    tmp_path, whole, stop, interval
):
    """Killed in one of two epochs of ten steps, then run again."""
    objective, folder, curve, model = whole
    run_until(stop, interval, tmp_path / "killed", objective)
    again, resumed = run(tmp_path / "killed", objective)
    for name, weights in model.state_dict().items():
        assert weights.equal(resumed.state_dict()[name]), name
    for first, second in zip(curve, again, strict=True):
        # All but the time it took: hours and training means too.
        timeless = [
            {k: v for k, v in entry.items() if not k.endswith("_seconds")}
            for entry in (first, second)
        ]
        assert timeless[0] == timeless[1]
    files = [
        load_file(path / "encoder" / "model.safetensors")
        for path in (folder, tmp_path / "killed")
    ]
    for name, weights in files[0].items():
        assert weights.equal(files[1][name])


def test_dropout_is_drawn_as_in_an_uninterrupted_stage(tmp_path):
    options = {"encoder_changes": {"hidden_dropout": 0.3}}
    _, model = run(tmp_path / "whole", **options)
    run_until(13, 3, tmp_path / "killed", **options)
    _, resumed = run(tmp_path / "killed", **options)
    for name, weights in model.state_dict().items():
        assert weights.equal(resumed.state_dict()[name]), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16_with_workers_and_accumulated_gradients(tmp_path, objective):
    options = {"precision": "bf16", "grad_accumulation_factor": 2}
    curve, model = run(tmp_path, objective, options, num_workers=2)
    assert [entry["step"] for entry in curve] == [5, 10]
    for entry in curve:
        numbers = [v for v in entry.values() if isinstance(v, float)]
        assert all(math.isfinite(number) for number in numbers)
    assert all(w.dtype == torch.float32 for w in model.parameters())


def rates_of(folder, run_opts):
    """Return the rate of each step."""
    rates = []
    with pytest.MonkeyPatch.context() as patch:
        step = sb.Brain.optimizers_step

        def noted(brain):
            rates.append(brain.optimizer.param_groups[0]["lr"])
            step(brain)

        patch.setattr(sb.Brain, "optimizers_step", noted)
        run(folder, run_opts=run_opts)
    return rates


def test_the_schedule_spans_all_steps_of_the_optimizer(tmp_path):
    """Also where gradients of two batches make a step."""
    for factor, steps in ((1, 20), (2, 10)):
        rates = rates_of(
            tmp_path / str(factor), {"grad_accumulation_factor": factor}
        )
        schedule = settings(tmp_path)["schedule"]
        expected = [0.01 * schedule(n / steps) for n in range(steps)]
        np.testing.assert_allclose(rates, expected)


def test_a_loss_that_is_no_number_stops_the_run_in_one_line(
    tmp_path, monkeypatch
):
    loss = pretrain.UnitBrain.objective

    def spoiled(brain, *args):
        factor = float("nan") if brain.optimizer_step == 12 else 1.0
        return factor * loss(brain, *args)

    often = {"ckpt_interval_steps": 2, "ckpt_interval_minutes": 0}
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.UnitBrain, "objective", spoiled)
        with pytest.raises(SettingError) as caught:
            run(tmp_path, run_opts=often)
    line = str(caught.value)
    assert "\n" not in line
    for part in ("iteration_1", "step 13", "0.01", "fp32"):
        assert part in line
    # The weights are those before it: the run goes on from its checkpoint.
    curve, model = run(tmp_path)
    assert [entry["step"] for entry in curve] == [10, 20]
    assert all(torch.isfinite(w).all() for w in model.parameters())


@pytest.mark.parametrize(
    ("changes", "encoder_changes", "part"),
    [
        ({"iterations": [{"units": 9, "epochs": 2, "of": "mfcc"}]}, {}, "9"),
        ({}, {"hidden_size": 32}, "32"),
        ({}, {"num_hidden_layers": 3}, "nothing"),
    ],
)
def test_a_checkpoint_of_another_shape_is_one_line(
    tmp_path, changes, encoder_changes, part
):
    run(tmp_path, epoch_steps=1)
    with pytest.raises(MismatchError) as caught:
        run(tmp_path, encoder_changes=encoder_changes, **changes)
    line = str(caught.value)
    assert "\n" not in line and part in line
    assert "iteration_1" in line and "--output_folder" in line


def test_code_temperature_falls_from_the_first_to_the_last(tmp_path):
    hparams = settings(tmp_path)
    brain = stage_brain(
        ContrastiveBrain,
        "contrastive",
        torch.nn.Linear(1, 1),
        {"epochs": 1, "lr": 0.1},
        hparams,
        QUIET,
    )
    brain._total_steps = 100
    found = []
    for brain.optimizer_step in (0, 50, 100, 130):
        found.append(brain.code_temperature)
    np.testing.assert_allclose(found, [2.0, 1.0, 0.5, 0.5])


def test_settings_of_the_yaml_reach_speechbrain(tmp_path):
    brain = stage_brain(
        ContrastiveBrain,
        "contrastive",
        torch.nn.Linear(1, 1),
        {"epochs": 1, "lr": 0.1},
        settings(tmp_path, max_grad_norm=0.7, ckpt_interval_minutes=9),
        {**QUIET, "precision": "bf16"},
    )
    assert brain.max_grad_norm == 0.7
    assert brain.ckpt_interval_minutes == 9
    assert brain.precision == "bf16"
    command_line = {**QUIET, "max_grad_norm": 2.0}
    brain = stage_brain(
        ContrastiveBrain,
        "contrastive",
        torch.nn.Linear(1, 1),
        {"epochs": 1, "lr": 0.1},
        settings(tmp_path),
        command_line,
    )
    assert brain.max_grad_norm == 2.0


@pytest.mark.parametrize("bank", [True, False])
def test_a_front_end_starts_as_a_bank_where_its_kernel_is_long(
    tmp_path, monkeypatch, bank
):
    shape = {
        "conv_dim": (8, 8, 8, 16),
        "conv_kernel": (256 if bank else SHORTEST_KERNEL - 1, 5, 3, 2),
        "conv_stride": (40, 4, 2, 2),
        "num_feat_extract_layers": 4,
    }
    encoder = small_encoder(**shape)
    first = encoder.feature_extractor.conv_layers[0].conv
    before = first.weight.detach().clone()
    hparams = settings(tmp_path, encoder_config=encoder.config)
    hparams.update(warmup_epochs=1, warmup_steps=1, warmup_clips=2)
    hparams.update(warmup_seconds=0.5, mel_bins=20)
    fitted = []
    monkeypatch.setattr(
        "s3router.brains.pretrain_warm_up.fit_stage",
        lambda brain, *args: fitted.append(first.weight.detach().clone()),
    )
    grid = FrameGrid.of(encoder.config)
    ones = np.ones(2)
    pool = SimpleNamespace(audio=None, train=ones, valid=ones, grid=grid)
    warm_up(encoder, pool, hparams, QUIET)
    if bank:
        expected = torch.from_numpy(gabor_filters(8, 256))[:, None]
        assert fitted[0].equal(expected)
    else:
        assert fitted[0].equal(before)
    assert not any(p.requires_grad for p in first.parameters())
