"""Bundles: what is in them, what is refused, and that faults are found."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from subnetworks import make_encoder, make_subnetwork

from s3router.errors import (
    FormatError,
    MismatchError,
    NotFoundError,
    SettingError,
    VerificationError,
)
from s3router.export import layouts, parity
from s3router.export.bundle import make_bundle
from s3router.export.probes import probe_signal, stress_lengths
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer


def test_report_and_manifest(exported, encoder_folder):
    folder, report = exported
    bundle = Bundle.load(folder)
    bundle.verify()
    assert list(bundle.languages) == ["zh-CN", "es"]
    loaded = load_encoder(str(encoder_folder))
    assert bundle.encoder["fingerprint"] == loaded.fingerprint()
    assert bundle.encoder["family"] == "wav2vec2"
    assert (bundle.sample_rate, bundle.normalize) == (16000, True)
    assert (bundle.min_samples, bundle.hop) == (400, 320)
    zh = bundle.languages["zh-CN"]
    assert (zh.blank, zh.unk, zh.unit) == (0, 1, "char")
    assert zh.zeros == 6064
    assert zh.sparsity == pytest.approx(0.37, abs=1e-3)
    assert bundle.languages["es"].method == "full"
    for code, entry in report["languages"].items():
        assert entry["parity"] == bundle.parity[code]
        assert entry["parity"]["max_error"] < 1e-4
        assert entry["parity"]["max_error_padded"] < 1e-4
        assert entry["parity"]["max_logit"] > 1
    total = sum(e["bytes"] for e in report["languages"].values())
    assert report["bytes"] == total


def test_logits_and_text_are_those_of_torch(
    exported, encoder_folder, subnetwork_folders
):
    """Through the public door, against transformers' own forward."""
    subnetwork = Subnetwork.load(subnetwork_folders[0])
    from transformers import AutoModel, Wav2Vec2FeatureExtractor

    plain = AutoModel.from_pretrained(encoder_folder).eval()
    for name, mask in subnetwork.masks.items():
        weight = plain.get_submodule(name).weight.data
        weight[~np.asarray(mask)] = 0
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    recognizer = Recognizer(exported[0], "zh", "cpu", threads=1)
    for samples in (400, 719, 720, 16000, 30011):
        signal = probe_signal(samples, samples)
        inputs = extractor(
            signal, sampling_rate=16000, return_tensors="pt"
        ).input_values
        hidden = plain(inputs).last_hidden_state[0].detach().numpy()
        head = subnetwork.head
        expected = hidden @ head["weight"].T + head["bias"]
        np.testing.assert_allclose(
            recognizer.logits(signal), expected, atol=1e-4
        )
    assert len(recognizer.transcribe(signal).text) > 5


def test_stress_lengths_straddle_a_frame(encoder_folder):
    encoder = load_encoder(str(encoder_folder))
    lengths = stress_lengths(encoder)
    frames = encoder.output_lengths(torch.tensor(lengths)).tolist()
    assert (lengths[0], frames[0]) == (400, 1)
    assert frames[1:4] == [9, 10, 10]
    assert max(lengths) > 160_000
    assert any(length % 2 for length in lengths)


def copy(exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[0], tmp_path / "copy"))


def alter(folder: Path, name: str, change) -> None:
    """Change an initialiser of zh-CN, and seal the bundle again."""
    path = folder / "zh-CN" / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            value = onnx.numpy_helper.to_array(tensor).copy()
            change(value)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
            break
    else:
        raise AssertionError(name)
    onnx.save(model, path)
    Bundle.load(folder).save(folder)


def test_check_repeats_the_numbers(exported):
    numbers = check_bundle(exported[0])
    assert numbers == Bundle.load(exported[0]).parity
    assert numbers["zh-CN"]["rounding"] is None  # not needed, not measured


def test_a_wrong_bias_is_found(exported, tmp_path):
    folder = copy(exported, tmp_path)

    def shift(bias):
        bias[3] += 2e-4

    alter(folder, "head.bias", shift)
    with pytest.raises(VerificationError, match=r"zh-CN.*differ.* 2\.\d+e-04"):
        check_bundle(folder)


def test_rounding_of_torch_itself_is_allowed(exported, tmp_path):
    numbers = check_bundle(exported[0], tolerance=1e-9)["zh-CN"]
    assert 1e-7 < numbers["rounding"] < 1e-4
    assert 1e-9 < numbers["max_error"] < 4 * numbers["rounding"]
    folder = copy(exported, tmp_path)

    def shift(bias):
        bias[3] += 10 * numbers["rounding"]

    alter(folder, "head.bias", shift)
    with pytest.raises(VerificationError, match="torch's own rounding"):
        check_bundle(folder, tolerance=1e-9)


def test_a_nan_is_found(exported, tmp_path):
    folder = copy(exported, tmp_path)

    def spoil(bias):
        bias[0] = np.nan

    alter(folder, "head.bias", spoil)
    with pytest.raises(VerificationError, match="zh-CN"):
        check_bundle(folder)


def test_a_weight_that_should_be_zero_is_found(exported, tmp_path):
    folder = copy(exported, tmp_path)
    name = "encoder.layers.1.feed_forward.output_dense.weight"

    def revive(weight):
        weight.flat[np.flatnonzero(weight == 0)[0]] = 1e-9  # no logit shows it

    alter(folder, name, revive)
    with pytest.raises(VerificationError, match=f"{name} differs"):
        check_bundle(folder)


def test_swapped_tokens_are_found(exported, tmp_path):
    folder = copy(exported, tmp_path)
    path = folder / "zh-CN" / "tokens.txt"
    text = path.read_text(encoding="utf-8")
    swapped = text.replace("a 3\nb 4\n", "b 3\na 4\n")
    assert swapped != text
    path.write_text(swapped, encoding="utf-8")
    Bundle.load(folder).save(folder)
    with pytest.raises(VerificationError, match="tokens are not"):
        check_bundle(folder)


def test_a_damaged_file_is_found(exported, tmp_path):
    folder = copy(exported, tmp_path)
    path = folder / "es" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="model.onnx is truncated"):
        check_bundle(folder)


def test_check_with_another_subnetwork(exported, tmp_path, encoder_folder):
    other = make_subnetwork(tmp_path / "s", encoder_folder, "zh-CN", seed=9)
    with pytest.raises(MismatchError, match="not the subnetwork that zh-CN"):
        check_bundle(exported[0], [other])


def test_a_bundle_that_fails_is_not_written(
    tmp_path, subnetwork_folders, exported, monkeypatch
):
    def export_as_before(graph, path, sparse):
        shutil.copy(exported[0] / "zh-CN" / "model.onnx", path)
        return [path]

    monkeypatch.setattr(layouts, "save_graph", export_as_before)
    output = tmp_path / "bundle"
    output.mkdir()
    old = {"format_version": 1, "note": "an older bundle"}
    (output / "manifest.json").write_text(json.dumps(old))
    with monkeypatch.context() as strict:
        strict.setattr(parity, "ROUNDINGS", 0.0)
        with pytest.raises(VerificationError, match="most 0.00e.00 is allowed"):
            make_bundle(
                subnetwork_folders[:1],
                output,
                layout="standalone",
                tolerance=0.0,
            )
    assert json.loads((output / "manifest.json").read_text()) == old
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    # With the usual tolerance the same graph passes and replaces the old.
    make_bundle(subnetwork_folders[:1], output, layout="standalone")
    assert list(Bundle.load(output).languages) == ["zh-CN"]


def test_other_text_is_found(exported, subnetwork_folders, monkeypatch):
    """Logits may agree and the decoding still differ."""
    wrong = parity.join_tokens
    monkeypatch.setattr(
        parity, "join_tokens", lambda *args: wrong(*args).upper()
    )
    with pytest.raises(VerificationError, match="torch reads"):
        check_bundle(exported[0], subnetwork_folders)


def test_a_folder_of_others_is_not_replaced(tmp_path, subnetwork_folders):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingError, match="will not replace"):
        make_bundle(subnetwork_folders, tmp_path)
    assert (tmp_path / "thesis.txt").is_file()


def test_one_language_twice(tmp_path, subnetwork_folders):
    with pytest.raises(SettingError, match="both of language zh-CN"):
        make_bundle([subnetwork_folders[0]] * 2, tmp_path / "b")


def test_subnetworks_of_two_encoders(tmp_path, subnetwork_folders):
    encoder = make_encoder(tmp_path / "e", "wav2vec2-base", seed=3)
    other = make_subnetwork(tmp_path / "s", encoder, "fr")
    with pytest.raises(MismatchError, match="their fingerprint differs"):
        make_bundle([subnetwork_folders[0], other], tmp_path / "b")
    third = make_encoder(tmp_path / "e2", "wav2vec2-base", seed=4)
    with pytest.raises(MismatchError, match="was made for the encoder"):
        make_bundle([other], tmp_path / "b", encoder=str(third))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "sharde"}, "unknown layout 'sharde'.*standalone"),
        ({"precision": "int4"}, "unknown precision 'int4'.*fp32"),
    ],
)
def test_unknown_settings(tmp_path, subnetwork_folders, settings, words):
    with pytest.raises(SettingError, match=words):
        make_bundle(subnetwork_folders, tmp_path / "b", **settings)


def test_nothing_to_export(tmp_path):
    with pytest.raises(SettingError, match="no subnetwork"):
        make_bundle([], tmp_path / "b")
    with pytest.raises(NotFoundError, match="no such subnetwork"):
        make_bundle([tmp_path / "nothing"], tmp_path / "b")


def test_language_that_cannot_be_a_folder(tmp_path, encoder_folder):
    folder = make_subnetwork(tmp_path / "s", encoder_folder, "../xx")
    with pytest.raises(SettingError, match="cannot name a folder"):
        make_bundle([folder], tmp_path / "b")


def test_encoder_that_is_gone(tmp_path, subnetwork_folders):
    gone = str(tmp_path / "gone")
    with pytest.raises(NotFoundError, match="gone"):
        make_bundle(subnetwork_folders, tmp_path / "b", encoder=gone)
    assert not (tmp_path / "b").exists()


def test_settings_that_do_not_fit(tmp_path, subnetwork_folders):
    masked, output = subnetwork_folders[:1], tmp_path / "b"
    with pytest.raises(SettingError, match="encoding bits.*standalone"):
        make_bundle(masked, output, encoding="bits")
    with pytest.raises(SettingError, match="unknown layout 'foo'"):
        make_bundle(masked, output, layout="foo", profile="onnx-asr")
    assert not output.exists()
