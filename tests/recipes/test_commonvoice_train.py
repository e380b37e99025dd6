"""The recipe as its user runs it: train, stop and go on, two processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from s3router.export.fold import fold
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.front_end import front_end_masks
from s3router.models.encoder import load_encoder
from s3router.runtime.audio import read_audio
from s3router.runtime.decode import greedy_ctc, join_tokens


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """One finished run of mask tuning: its folder and its output."""
    output = tmp_path_factory.mktemp("mask")
    done = recipe.run(output, "--number_of_epochs=4", "--validate_every=2")
    assert done.returncode == 0, done.stderr[-3000:]
    return output, done


def test_run_leaves_subnetwork_result_and_transcripts(finished):
    output, done = finished
    subnetwork = Subnetwork.load(output / "subnetwork")
    assert subnetwork.config["language"] == "zh-CN"
    assert subnetwork.config["measured_sparsity"] == 0.5
    assert subnetwork.tokens[:2] == ["<blk>", "<unk>"]
    assert sorted(subnetwork.tokens[2:]) == sorted("一二三四")
    result = json.loads((output / "result.json").read_text())
    assert result["extra"]["method"] == "mask_tuning"
    assert result["config"]["sparsity"] == 0.5
    cer = result["metrics"]["test_cer"]
    assert cer["total"] == 8 * 3 and cer["low"] <= cer["rate"] <= cer["high"]
    transcripts = json.loads((output / "transcripts.json").read_text())
    assert len(transcripts) == 8
    assert "CER % [95% CI]" in done.stdout
    log = (output / "train_log.txt").read_text()
    assert "mask_flips" in log and "sparsity" in log


def test_checkpoint_holds_no_encoder(finished):
    output, _ = finished
    checkpoint = next((output / "save").glob("CKPT*"))
    names = {f.stem for f in checkpoint.iterdir()}
    assert {"method", "head", "optimizer_scores", "random_state"} <= names
    assert not any("encoder" in n or "recognizer" in n for n in names)


def test_killed_run_goes_on_to_the_same_subnetwork(recipe, finished, tmp_path):
    output, _ = finished
    options = ("--number_of_epochs=4", "--validate_every=2")
    intra = ("--ckpt_interval_minutes=0", "--ckpt_interval_steps=1")
    process = subprocess.Popen(
        [sys.executable, *recipe.command(tmp_path, *options, *intra)],
        cwd=os.getcwd(),
        env=recipe.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if any((tmp_path / "save").glob("CKPT*/CKPT.yaml")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "result.json").exists(), "it was not stopped"
    again = recipe.run(tmp_path, *options, *intra)
    assert again.returncode == 0, again.stderr[-3000:]
    whole = Subnetwork.load(output / "subnetwork")
    resumed = Subnetwork.load(tmp_path / "subnetwork")
    for name, mask in whole.masks.items():
        assert np.array_equal(mask, resumed.masks[name]), name
    for name, value in whole.head.items():
        assert np.array_equal(value, resumed.head[name]), name


def test_finished_run_starts_no_training_again(recipe, finished):
    output, _ = finished
    before = (output / "train_log.txt").read_text()
    options = ("--number_of_epochs=4", "--validate_every=2")
    again = recipe.run(output, *options)
    assert again.returncode == 0
    assert (output / "train_log.txt").read_text() == before


@pytest.mark.parametrize("method", ["full", "head_only"])
def test_baselines_differ_in_one_word(recipe, tmp_path, method):
    done = recipe.run(tmp_path, f"--method={method}")
    assert done.returncode == 0, done.stderr[-3000:]
    subnetwork = Subnetwork.load(tmp_path / "subnetwork")
    assert subnetwork.config["method"] == method
    assert not subnetwork.masks
    assert bool(subnetwork.weights) == (method == "full")


def test_cached_front_end_and_warm_head_learn_the_tones(recipe, tmp_path):
    done = recipe.run(
        tmp_path,
        "--cache_front_end=True",
        "--head_warmup_steps=150",
        "--method=full",
        "--lr_weights=0.003",
        "--span_masking={time_prob: 0.0, channel_prob: 0.0}",
        "--number_of_epochs=25",
        "--validate_every=25",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["test_cer"]["rate"] < 0.3


def test_runs_that_share_a_folder_find_what_they_find_alone(recipe, tmp_path):
    """Features and warm heads of another run change no bit, and are used."""
    options = (
        "--cache_front_end=True",
        "--head_warmup_steps=40",
        "--augmented_copies=1",
    )
    shared = f"--reuse_folder={tmp_path / 'reuse'}"
    found, kept = [], []
    for name, extra in (("alone", ()), ("first", (shared,))):
        done = recipe.run(tmp_path / name, *options, *extra)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(Subnetwork.load(tmp_path / name / "subnetwork"))
    for file in sorted((tmp_path / "reuse").rglob("*.*")):
        if file.is_file():
            kept.append((file.name.split("-")[0], file.stat().st_mtime_ns))
    assert {name for name, _ in kept} == {"train", "held_out", "head"}
    done = recipe.run(tmp_path / "second", *options, shared)
    assert done.returncode == 0, done.stderr[-3000:]
    found.append(Subnetwork.load(tmp_path / "second" / "subnetwork"))
    again = sorted(f for f in (tmp_path / "reuse").rglob("*.*") if f.is_file())
    assert [f.stat().st_mtime_ns for f in again] == [time for _, time in kept]
    for other in found[1:]:
        assert found[0].difference(other) is None


def test_two_processes_find_one_mask(recipe, tmp_path):
    """Both ranks log a digest of their masks: it must be the same."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "tests/tools/train_and_digest.py",
        str(tmp_path / "digests"),
        *recipe.command(tmp_path / "run", "--distributed_backend=gloo")[1:],
    ]
    done = subprocess.run(
        command,
        env=recipe.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    digests = [f.read_text() for f in (tmp_path / "digests").iterdir()]
    assert len(digests) == 2 and digests[0] == digests[1]
    start, end = digests[0].split()
    assert start != end, "no mask moved"
    assert Subnetwork.load(tmp_path / "run" / "subnetwork").masks


def test_bf16_on_cpu(recipe, tmp_path):
    done = recipe.run(tmp_path, "--precision=bf16", "--number_of_epochs=1")
    assert done.returncode == 0, done.stderr[-3000:]


def error_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr[-3000:]
    lines = [x for x in done.stderr.splitlines() if "error:" in x]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity=1.0"], ["sparsity", "1.0"]),
        (["--sparsity=-0.1"], ["sparsity", "-0.1"]),
        (["--targets=encoder.layer.*"], ["encoder.layer.*", "encoder.layers"]),
        (["--data_folder=/nowhere/cv"], ["/nowhere/cv"]),
        (["--encoder=/nowhere/encoder"], ["/nowhere/encoder"]),
        (["--encoder=facebook/wav2vec2-base"], ["--encoder=tiny"]),
        (["--method=mask"], ["mask_tuning"]),
        (
            ["--method=parp", "--mask_rule=positive"],
            ["mask_rule is 'positive'", "(parp)", "mask_tuning"],
        ),
        (["--no_such_setting=1"], ["no_such_setting"]),
        (["--score_init=zero"], ["zero"]),
        (["--language=xx"], ["xx"]),
    ],
)
def test_wrong_settings_get_one_line(recipe, tmp_path, options, words):
    line = error_line(recipe.run(tmp_path, *options))
    for word in words:
        assert word in line


def test_folder_that_is_no_encoder(recipe, tone_corpus, tmp_path):
    line = error_line(recipe.run(tmp_path, f"--encoder={tone_corpus}"))
    assert "config.json" in line


def test_checkpoint_of_another_method_is_refused(recipe, finished, tmp_path):
    output, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    line = error_line(recipe.run(copy, "--method=full"))
    assert "mask_tuning" in line or "another" in line


def test_a_run_does_not_go_on_with_other_settings(recipe, finished, tmp_path):
    output, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    result = (copy / "result.json").read_bytes()
    line = error_line(
        recipe.run(copy, "--number_of_epochs=4", "--sparsity=0.4")
    )
    assert "was started with sparsity 0.5, and not 0.4" in line
    assert (copy / "result.json").read_bytes() == result


def test_a_search_leaves_test_alone_and_is_finished_later(recipe, tmp_path):
    searched = recipe.run(tmp_path, "--evaluate_test=False")
    assert searched.returncode == 0, searched.stderr[-3000:]
    assert "test was not looked at" in searched.stdout
    first = json.loads((tmp_path / "result.json").read_text())
    assert set(first["metrics"]) == {"dev_cer", "dev_wer"}
    assert not (tmp_path / "transcripts.json").exists()
    before = Subnetwork.load(tmp_path / "subnetwork")

    done = recipe.run(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    second = json.loads((tmp_path / "result.json").read_text())
    assert second["metrics"]["dev_cer"] == first["metrics"]["dev_cer"]
    assert second["metrics"]["test_cer"]["total"] == 8 * 3
    assert before.difference(Subnetwork.load(tmp_path / "subnetwork")) is None
    # Nothing was trained again: the clock stands where it stood.
    for key in ("training_seconds", "seconds_per_batch", "optimizer_steps"):
        assert second["extra"][key] == first["extra"][key] > 0
    assert second["extra"]["peak_memory_bytes"] > 1e8


def test_front_end_loses_its_least_channels(recipe, small_encoder, tmp_path):
    """What is cached, trained and tested with is what is saved."""
    done = recipe.run(
        tmp_path,
        "--method=head_only",
        "--front_end_sparsity=0.5",
        "--cache_front_end=True",
        "--head_warmup_steps=100",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    subnetwork = Subnetwork.load(tmp_path / "subnetwork")
    assert subnetwork.config["front_end_sparsity"] == 0.5
    model = load_encoder(str(small_encoder)).model
    expected = front_end_masks(model, 0.5)
    assert list(subnetwork.masks) == sorted(expected)
    for name, mask in expected.items():
        assert np.array_equal(mask, subnetwork.masks[name])
    folded = fold(load_encoder(str(small_encoder)), subnetwork)
    rows = json.loads((tmp_path / "transcripts.json").read_text())
    texts = set()
    for row in rows:
        clip = torch.from_numpy(read_audio(row["wav"]))
        (logits,) = folded.padded([clip])
        ids = greedy_ctc(logits.numpy(), 0)
        text = join_tokens(ids, subnetwork.tokens, (0, 1))
        assert text.replace(" ", "") == row["hypothesis"].replace(" ", "")
        texts.add(text)
    assert len(texts) > 1


def test_the_rate_that_chooses_the_epoch_is_a_setting(recipe, tmp_path):
    line = error_line(recipe.run(tmp_path, "--select_by=cer"))
    assert "unknown select_by 'cer'" in line and "WER" in line
    done = recipe.run(tmp_path, "--select_by=WER", "--number_of_epochs=4")
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "train_log.txt").read_text()
    rates = [float(wer) for wer in re.findall(r"valid WER: ([\d.e+]+)", log)]
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert len(rates) == 4
    assert 100 * metrics["dev_wer"] == pytest.approx(min(rates), abs=0.01)
    assert Subnetwork.load(tmp_path / "subnetwork").config["unit"] == "word"
