"""Tasks that classify: exported, verified, and run beside CTC ones."""

import json

import numpy as np
import onnx
import pytest
import soundfile
import torch
from subnetworks import make_encoder, make_subnetwork
from transformers import AutoModel

from s3router.cli import main
from s3router.errors import MismatchError, SettingError, VerificationError
from s3router.export.bundle import make_bundle
from s3router.export.probes import probe_signal
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime import recognizer as runtime
from s3router.runtime.recognizer import Recognizer
from s3router.runtime.segments import find_segments


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, encoder_folder):
    """Return a language and a task of who speaks, on one encoder."""
    root = tmp_path_factory.mktemp("mixed")
    return [
        make_subnetwork(root / "es", encoder_folder, "es", 0.3),
        make_subnetwork(
            root / "who",
            encoder_folder,
            "who",
            0.2,
            seed=1,
            task="classification",
        ),
    ]


@pytest.fixture(scope="module", params=["shared", "standalone"])
def bundle(request, tmp_path_factory, mixed):
    folder = tmp_path_factory.mktemp("pooled") / "bundle"
    make_bundle(mixed, folder, layout=request.param)
    return folder


def expected_logits(path, encoder, clip):
    """Compute with transformers alone: mean over frames, then the head."""
    subnetwork = Subnetwork.load(path)
    model = AutoModel.from_pretrained(encoder).eval()
    for name, mask in subnetwork.masks.items():
        model.get_submodule(name).weight.data[~torch.from_numpy(mask)] = 0
    audio = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.no_grad():
        hidden = model(torch.from_numpy(audio[None])).last_hidden_state[0]
    pooled = hidden.numpy().mean(0)
    return pooled @ subnetwork.head["weight"].T + subnetwork.head["bias"]


def test_a_task_and_a_language_of_one_bundle(bundle, mixed, encoder_folder):
    recognizer = Recognizer(bundle, "who", "cpu")
    names = Subnetwork.load(mixed[1]).tokens
    for samples in (400, 16000, 30011):
        clip = probe_signal(samples, samples)
        logits = expected_logits(mixed[1], encoder_folder, clip)
        np.testing.assert_allclose(recognizer.logits(clip), logits, atol=1e-4)
        said = recognizer.classify(clip)
        assert said.label == names[int(logits.argmax())]
        shares = np.exp(logits) / np.exp(logits).sum()
        assert list(said.probabilities) == names
        got = list(said.probabilities.values())
        np.testing.assert_allclose(got, shares, atol=1e-4)
    assert said.duration == pytest.approx(30011 / 16000)
    with pytest.raises(SettingError, match="who .* use Recognizer.classify"):
        recognizer.transcribe(clip)
    recognizer.switch("es")
    assert recognizer.task == "ctc"
    assert recognizer.transcribe(clip).text
    with pytest.raises(SettingError, match="es .* use Recognizer.transcribe"):
        recognizer.classify(clip)


def test_the_graph_gives_one_row_a_clip(bundle):
    entry = Bundle.load(bundle).languages["who"]
    graph = onnx.load(bundle / entry.model, load_external_data=False).graph
    (output,) = graph.output
    sizes = [
        d.dim_value or d.dim_param for d in output.type.tensor_type.shape.dim
    ]
    assert (output.name, sizes) == ("logits", ["batch", 25])
    clips = np.stack([probe_signal(8000, seed) for seed in range(3)])
    recognizer = Recognizer(bundle, "who", "cpu")
    rows = np.stack([recognizer.prepare(clip) for clip in clips])
    together = recognizer.session.run(rows)
    assert together.shape == (3, 25)
    for row, clip in zip(together, clips, strict=True):
        np.testing.assert_allclose(row, recognizer.logits(clip), atol=1e-4)


def test_a_long_recording_is_classified_in_pieces(bundle):
    short = Recognizer(bundle, "who", "cpu", chunk_seconds=2.0)
    clip = np.concatenate([probe_signal(30000, seed) for seed in range(3)])
    pieces = find_segments(clip, 16000, 2.0)
    assert len(pieces) > 2
    logits = sum(
        (piece.end - piece.start) * short.logits(clip[piece.start : piece.end])
        for piece in pieces
    ) / len(clip)
    expected = np.exp(logits) / np.exp(logits).sum()
    said = short.classify(clip)
    got = list(said.probabilities.values())
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert said.duration == pytest.approx(90000 / 16000)


def test_verification_finds_other_classes(bundle, mixed, monkeypatch):
    assert check_bundle(bundle, mixed)["who"]["texts"] > 5
    right = Recognizer.classify

    def wrong(self, audio):
        said = right(self, audio).as_dict()
        said["label"] = "nobody"
        return runtime.Classification(**said)

    monkeypatch.setattr(Recognizer, "classify", wrong)
    with pytest.raises(VerificationError, match="onnxruntime 'nobody'"):
        check_bundle(bundle, mixed)


def test_the_command_prints_the_label(bundle, tmp_path, capsys):
    path = tmp_path / "a.wav"
    soundfile.write(path, probe_signal(16000, 1), 16000)
    said = Recognizer(bundle, "who", "cpu").classify(path)
    command = ["transcribe", str(bundle), str(path), "-l", "who", "-q"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{path}\t{said.label}\n"
    assert main([*command, "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["label"] == said.label
    assert entry["probabilities"] == pytest.approx(said.probabilities)


@pytest.mark.parametrize("profile", ["sherpa-onnx", "onnx-asr"])
def test_clients_transcribe_only(mixed, tmp_path, profile):
    with pytest.raises(SettingError, match="runs CTC only"):
        make_bundle(mixed, tmp_path / "b", profile=profile)


def test_a_class_too_few(mixed, tmp_path):
    subnetwork = Subnetwork.load(mixed[1])
    subnetwork.tokens.pop()
    with pytest.raises(MismatchError, match="25 outputs.* 24 tokens"):
        subnetwork.save(tmp_path / "s")


def test_a_task_of_another_kind(encoder_folder, tmp_path):
    path = make_subnetwork(tmp_path / "s", encoder_folder, task="translation")
    with pytest.raises(SettingError, match="unknown task.*classification"):
        make_bundle([path], tmp_path / "b")


def test_other_families_classify_too(tmp_path):
    for family in ("wavlm-large", "data2vec"):
        encoder = make_encoder(tmp_path / family, family)
        path = make_subnetwork(
            tmp_path / f"{family}-s", encoder, task="classification"
        )
        report = make_bundle([path], tmp_path / "b")["languages"]["xx"]
        assert report["parity"]["max_error_padded"] < 1e-4
