"""Forms, precisions, layouts, profiles and tasks, together in one bundle."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from structured import make_structured
from subnetworks import make_subnetwork
from transformers import AutoModel

from s3router.errors import SettingError
from s3router.export.bundle import make_bundle
from s3router.export.precision import LEAST
from s3router.export.probes import probe_signal
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.recognizer import Recognizer

ALL = [
    (layout, precision)
    for layout in ("shared", "standalone")
    for precision in ("fp16", "int8")
]


@pytest.fixture(scope="module")
def languages(tmp_path_factory, encoder_folder) -> dict[str, Path]:
    """Return a structured one, a plain mask, and a task that classifies."""
    root = tmp_path_factory.mktemp("mixed")
    return {
        "aa": make_structured(
            root / "aa", encoder_folder, "aa", [2, 3], [40, 24], extra=0.2
        ),
        "bb": make_subnetwork(root / "bb", encoder_folder, "bb", seed=3),
        "who": make_subnetwork(
            root / "who", encoder_folder, "who", seed=4, task="classification"
        ),
    }


@pytest.fixture(scope="module", params=ALL, ids="-".join)
def bundle(request, tmp_path_factory, languages) -> Path:
    layout, precision = request.param
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    make_bundle(
        list(languages.values()), folder, layout=layout, precision=precision
    )
    return folder


def halves(encoder: Path, subnetwork: Path, clip: np.ndarray) -> np.ndarray:
    """Return logits of frames by transformers, with weights of fp16."""
    loaded = Subnetwork.load(subnetwork)
    model = AutoModel.from_pretrained(encoder).eval().requires_grad_(False)
    norm = model.encoder.pos_conv_embed.conv
    torch.nn.utils.parametrize.remove_parametrizations(norm, "weight")
    for name, value in model.state_dict().items():
        if value.ndim >= 2 and value.numel() >= LEAST:
            mask = loaded.masks.get(name.removesuffix(".weight"), True)
            array = value.numpy().astype(np.float16).astype(np.float32)
            value.copy_(torch.from_numpy(np.where(mask, array, 0)))
    audio = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    given = torch.from_numpy(audio[None].astype(np.float32))
    hidden = model(given).last_hidden_state[0].numpy()
    return hidden @ loaded.head["weight"].T + loaded.head["bias"]


def optimised(path: Path, folder: Path) -> onnx.GraphProto:
    """Return what onnxruntime makes of a graph when it loads it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(folder / "optimised.onnx", load_external_data=False).graph


def test_languages_of_all_forms(bundle, languages, encoder_folder):
    clip = probe_signal(16000, 5)
    precision = Bundle.load(bundle).precision
    recognizer = Recognizer(bundle, "aa", "cpu")
    for code, path in languages.items():
        recognizer.switch(code)
        wanted = halves(encoder_folder, path, clip)
        if code == "who":
            wanted = wanted.mean(0)
        # Bytes are compared by their own tests; here, that it is the language.
        close = 1e-4 if precision == "fp16" else 0.2 * np.abs(wanted).max()
        got = recognizer.logits(clip)
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() < close
    assert recognizer.classify(clip).label in recognizer.symbols


def test_the_bundle_verifies_again(bundle):
    assert set(check_bundle(bundle)) == {"aa", "bb", "who"}


def test_weights_are_cast_and_gathered_at_loading(bundle, tmp_path):
    loaded = Bundle.load(bundle)
    assert loaded.languages["aa"].details["channels_kept"] == [40, 24]
    graph = optimised(bundle / loaded.languages["aa"].model, tmp_path)
    shapes = [tuple(t.dims) for t in graph.initializer]
    assert (32, 40) in shapes and (32, 64) not in shapes
    stored = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Gather", "Cast", "Where"):
            assert not stored.issuperset(node.input)


def test_mode_switch_wants_float32(bundle):
    wrong = {"shared": "of precision", "standalone": "layout shared"}
    wrong = wrong[Bundle.load(bundle).layout]
    with pytest.raises(SettingError, match=wrong):
        Recognizer(bundle, "bb", "cpu", mode="switch")


def test_mode_switch_runs_what_it_can(tmp_path, languages):
    make_bundle(list(languages.values()), tmp_path / "b", layout="shared")
    recognizer = Recognizer(tmp_path / "b", "bb", "cpu", mode="switch")
    clip = probe_signal(16000, 6)
    plain = Recognizer(tmp_path / "b", "bb", "cpu").logits(clip)
    np.testing.assert_allclose(recognizer.logits(clip), plain, atol=1e-4)
    for code in ("aa", "who"):
        why = f"mode switch: {code} is no mask"
        with pytest.raises(SettingError, match=why):
            recognizer.switch(code)
    assert recognizer.language == "bb"


@pytest.mark.parametrize("profile", ["sherpa-onnx", "onnx-asr"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_clients_of_fewer_bits(tmp_path, languages, profile, precision):
    paths = [languages["aa"], languages["bb"]]
    report = make_bundle(
        paths, tmp_path / "b", precision=precision, profile=profile
    )
    for language in report["languages"].values():
        assert language["change"]["max_logit"] < 1
        assert profile in language["parity"]["client"]
    assert Bundle.load(tmp_path / "b").runner is None
