"""What fewer bits cost: error rates, texts, the warning, and the command."""

import json
from pathlib import Path

import pytest

from s3router.cli import main
from s3router.export import accuracy, parity
from s3router.export.accuracy import measure_change
from s3router.export.bundle import make_bundle
from s3router.export.fold import fold
from s3router.export.probes import probe_signal
from s3router.export.transcripts import Spoken
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer


def errors(said: str, read: str) -> int:
    """Return the edit distance, by the table of the textbook."""
    row = list(range(len(read) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(read, 1):
            last, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, last + (a != b)),
            )
    return row[-1]


def test_a_rise_of_the_error_rate_is_warned_of(
    tmp_path, encoder_folder, subnetwork_folders
):
    """The bundle of one subnetwork against the model of another."""
    folder = tmp_path / "bundle"
    make_bundle(subnetwork_folders[:1], folder, precision="int8")
    recognizer = Recognizer(folder, "zh-CN", "cpu")
    clips = [probe_signal(n, n) for n in (20000, 30000)]
    read = [recognizer.transcribe(clip).text for clip in clips]
    subnetwork = Subnetwork.load(subnetwork_folders[0])
    for mask in subnetwork.masks.values():
        mask[: len(mask) // 2] = True
    model = fold(load_encoder(str(encoder_folder)), subnetwork)
    said = [
        parity.read_text(
            parity.torch_logits(model, clip),
            recognizer.symbols,
            recognizer.bundle.languages["zh-CN"],
        )
        for clip in clips
    ]
    truth = [text[:-1] + "x" for text in said]
    spoken = [Spoken(*pair) for pair in zip(clips, truth, strict=True)]
    change = measure_change(model, recognizer, spoken=spoken)
    total = sum(map(len, truth))
    before = sum(map(errors, truth, said)) / total
    after = sum(map(errors, truth, read)) / total
    assert (change.cer_fp32, change.cer) == pytest.approx((before, after))
    assert change.rise == pytest.approx((after - before) / before)
    distance = sum(map(errors, said, read)) / sum(map(len, said))
    assert change.text_distance == pytest.approx(distance)
    assert (change.clips, change.transcripts) == (2, 2)
    assert change.rise > 0.05
    assert f"from {before:.2%} to {after:.2%}" in change.warning
    # The other way round it falls, and nobody minds.
    spoken = [Spoken(*pair) for pair in zip(clips, read, strict=True)]
    change = measure_change(model, recognizer, spoken=spoken)
    assert (change.cer, change.warning) == (0, None)
    assert change.rise == -1


def speech(tmp_path: Path) -> Path:
    """Return a CSV of one clip that nobody speaks in."""
    import soundfile

    soundfile.write(tmp_path / "a.wav", probe_signal(16000, 5), 16000)
    path = tmp_path / "test.csv"
    path.write_text("wav,language,text\na.wav,zh,abcdef\n", encoding="utf-8")
    return path


def test_the_command(subnetwork_folders, tmp_path, capsys, monkeypatch):
    # So that whatever the error rate does is too much.
    monkeypatch.setattr(accuracy, "RISE", -1.0)
    given = ["export", str(subnetwork_folders[0]), "--precision", "int8"]
    given += ["--output", str(tmp_path / "b"), "--layout", "standalone"]
    given += ["--transcripts", str(speech(tmp_path))]
    assert main(given) == 0
    done = capsys.readouterr()
    assert "warning: zh-CN: with fewer bits the character error" in done.err
    assert "standalone, int8, " in done.out
    assert "zh-CN: logits within" in done.out and "; CER " in done.out
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["precision"] == "int8"
    change = manifest["change"]["zh-CN"]
    assert change["transcripts"] == 1 and change["cer"] > 0
    assert "with fewer bits" in change["warning"]


def test_fp32_has_nothing_to_report_without_transcripts(exported):
    for language in exported[1]["languages"].values():
        assert language["change"] == {}
