"""The quickstart in miniature, and what it refuses."""

import json
from pathlib import Path

import pytest

from s3router.errors import SettingError, VerificationError
from s3router.formats.subnetwork import Subnetwork
from s3router.quickstart import main as quickstart_main
from s3router.quickstart.main import CONTRASTS, MASKS, MINUTES, quickstart
from s3router.quickstart.runs import Run, train_all


def test_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingError, match="other things"):
        quickstart(tmp_path, clean=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_contrasts_differ_from_a_mask_run_in_the_method_only():
    first = MASKS[0]
    for run in CONTRASTS:
        assert (run.language, run.yaml) == (first.language, first.yaml)
        assert run.method != first.method
    assert "zh-CN" in {run.language for run in MASKS}
    assert len({run.language for run in MASKS}) == 3
    assert MINUTES["train"] == 2.0


def test_failed_training_is_named_with_its_last_line(tmp_path):
    run = Run("zh-CN", "hparams/zh_sparse.yaml", "mask_tuning")
    corpus = tmp_path / "nothing"
    with pytest.raises(VerificationError, match="zh-CN mask_tuning.*nothing"):
        train_all([run], tmp_path, corpus, epochs=1)


@pytest.mark.slow
def test_miniature_runs_resumes_and_starts_over(tmp_path, monkeypatch, capsys):
    pytest.importorskip("espeakng_loader", reason="synthetic extra missing")
    monkeypatch.setattr(quickstart_main, "EPOCHS", 1)
    sizes = {"train": 0.2, "dev": 0.1, "test": 0.1}
    monkeypatch.setattr(quickstart_main, "MINUTES", sizes)
    monkeypatch.setattr(quickstart_main, "MASKS", MASKS[:2])
    monkeypatch.setattr(quickstart_main, "CONTRASTS", CONTRASTS[:1])
    root = tmp_path / "quick"
    result = json.loads(Path(quickstart(root)).read_text())
    rows = result["metrics"]["rows"]
    assert [(r["language"], r["method"]) for r in rows] == [
        ("zh-CN", "mask_tuning"),
        ("es", "mask_tuning"),
        ("zh-CN", "full"),
    ]
    for row in rows:
        # Above 1e-4 only where torch itself rounds as much.
        assert row["agrees"] and row["max_logit_error"] < 1e-3
        assert row["cer"]["total"] > 0 and row["utterances"] > 0
    assert [row["sparsity"] for row in rows] == [0.5, 0.5, 0.0]
    assert "torch = onnxruntime" in capsys.readouterr().out
    for run in MASKS[:2]:
        folder = run.folder(root) / "subnetwork"
        assert Subnetwork.load(folder).config["language"] == run.language

    stamps = {
        path: path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.name in ("result.json", "model.onnx") or path.suffix == ".flac"
    }
    assert len(stamps) > 10
    quickstart(root)
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
