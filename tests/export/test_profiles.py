"""Bundles that sherpa-onnx and onnx-asr run as they are."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from subnetworks import make_encoder, make_subnetwork

from s3router.cli import main
from s3router.errors import FormatError, SettingError, VerificationError
from s3router.export import clients
from s3router.export.bundle import make_bundle
from s3router.export.fold import fold
from s3router.export.probes import probe_signal
from s3router.export.profiles import SHERPA_FLOOR
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.formats.tokens_file import load_tokens, save_tokens
from s3router.models.encoder import load_encoder
from s3router.runtime.audio import read_audio
from s3router.runtime.recognizer import Recognizer


def often_unknown(folder: Path) -> None:
    """Make unknown and space what a subnetwork reads most often."""
    subnetwork = Subnetwork.load(folder)
    model = fold(load_encoder(subnetwork.config["encoder"]), subnetwork)
    read = [
        row.argmax(-1).numpy()
        for row in model.padded([torch.from_numpy(clip) for clip in clips()])
    ]
    counts = np.bincount(np.concatenate(read), minlength=25)
    counts[0] = 0
    for values in subnetwork.head.values():
        for place, token in zip((1, 2), np.argsort(-counts)[:2], strict=True):
            values[[place, token]] = values[[token, place]]
    subnetwork.save(folder)


@pytest.fixture(scope="module")
def masked(tmp_path_factory, encoder_folder) -> list[Path]:
    """Return one with spaces between words, and one without."""
    root = tmp_path_factory.mktemp("masked")
    for code, seed in (("es", 0), ("zh", 1)):
        folder = make_subnetwork(
            root / code, encoder_folder, code, seed=seed, spaceless=code == "zh"
        )
        often_unknown(folder)
    return [root / "es", root / "zh"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory, masked) -> Path:
    """Return the bundle of both for nobody but us."""
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    make_bundle(masked, folder)
    return folder


@pytest.fixture(scope="module", params=["shared", "standalone"])
def for_sherpa(request, tmp_path_factory, masked) -> Path:
    """Return the bundle of both for sherpa-onnx."""
    folder = tmp_path_factory.mktemp("sherpa") / "bundle"
    report = make_bundle(
        masked, folder, layout=request.param, profile="sherpa-onnx"
    )
    assert report["layout"] == request.param
    return folder


@pytest.fixture(scope="module")
def for_onnx_asr(tmp_path_factory, masked) -> Path:
    """Return the bundle of both for onnx-asr."""
    folder = tmp_path_factory.mktemp("asr") / "bundle"
    report = make_bundle(masked, folder, profile="onnx-asr")
    assert report["layout"] == "standalone"
    return folder


def clips() -> list[np.ndarray]:
    """Return speech where there is some, and signals; loud and quiet."""
    shared = Path(os.environ.get("S3ROUTER_SHARED", "../shared"))
    files = sorted((shared / "data" / "en_fsdd" / "audio").rglob("*.ogg"))
    found = [read_audio(path) for path in files[:3]]
    found += [probe_signal(n, n) for n in (400, 16000, 30011)]
    return found + [clip * 0.01 + 0.002 for clip in found]


def open_sherpa(model: Path, tokens: Path):
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    client = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(model), tokens=str(tokens)
    )

    def read(clip: np.ndarray) -> str:
        stream = client.create_stream()
        stream.accept_waveform(16000, clip)
        client.decode_stream(stream)
        return stream.result.text

    return read


@pytest.mark.parametrize("code", ["es", "zh"])
def test_sherpa_onnx_reads_what_we_read(for_sherpa, plain, code):
    """Real sherpa-onnx, against the bundle that is not made for it."""
    entry = Bundle.load(for_sherpa).languages[code]
    read = open_sherpa(for_sherpa / entry.model, for_sherpa / entry.tokens)
    unaware = Bundle.load(plain).languages[code]
    naive = open_sherpa(plain / unaware.model, plain / unaware.tokens)
    ours = Recognizer(plain, code, "cpu")
    also = Recognizer(for_sherpa, code, "cpu")
    naively = 0
    for clip in clips():
        text = ours.transcribe(clip).text
        assert " ".join(read(clip).split()) == text
        assert also.transcribe(clip).text == text
        naively += " ".join(naive(clip).split()) == text
    # Without the profile it prints <unk>, and spaces in Chinese.
    assert naively < len(clips()) / 2


def test_sherpa_onnx_adds_this_floor(tmp_path):
    """A graph whose token is the mean square of what sherpa-onnx feeds it."""
    grid = np.linspace(0, 1, 1001, dtype=np.float32)
    constants = {"grid": grid[None, None], "one": [1], "two": [2]}
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("ReduceMean", ["square", "one"], ["mean"]),
        helper.make_node("Unsqueeze", ["mean", "two"], ["frames"]),
        helper.make_node("Sub", ["frames", "grid"], ["off"]),
        helper.make_node("Abs", ["off"], ["far"]),
        helper.make_node("Neg", ["far"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("x", 1, ["N", "S"])],
        [helper.make_tensor_value_info("logits", 1, ["N", "T", len(grid)])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    tokens = [f"v{i}" for i in range(len(grid) - 1)]
    save_tokens(tmp_path / "tokens.txt", [*tokens, "<blk>"])
    read = open_sherpa(tmp_path / "model.onnx", tmp_path / "tokens.txt")
    rng = np.random.default_rng(0)
    for loudness in (1e-3, 3e-3, 1e-2, 3e-2):
        clip = (rng.standard_normal(16000) * loudness + 0.1).astype("f4")
        variance = clip.astype(np.float64).var()
        expected = 1000 * variance / (variance + SHERPA_FLOOR)
        assert int(read(clip)[1:]) == pytest.approx(expected, abs=1)


def test_the_scale_of_quiet_audio_is_restored(for_sherpa, plain):
    ours, theirs = (Recognizer(b, "es", "cpu") for b in (plain, for_sherpa))
    assert theirs.bundle.variance_floor == SHERPA_FLOOR
    for loudness in (1.0, 1e-2, 1e-3, 0.0):
        clip = probe_signal(9000, 5) * np.float32(loudness)
        got, expected = theirs.logits(clip), ours.logits(clip)
        spoken = [i for i in range(expected.shape[1]) if i not in (0, 1)]
        np.testing.assert_allclose(
            got[:, spoken], expected[:, spoken], atol=1e-4
        )
        best = expected[:, :2].max(1)
        np.testing.assert_allclose(got[:, 0], best, atol=1e-4)
        assert got[:, 1].max() < expected.min()


def test_the_folder_is_as_onnx_asr_wants_it(for_onnx_asr):
    folder = for_onnx_asr / "es"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.onnx", "vocab.txt"]
    config = json.loads((folder / "config.json").read_text())
    assert config == {"model_type": "wav2vec2-ctc", "subsampling_factor": 320}
    assert load_tokens(folder / "vocab.txt")[0] == "<blk>"
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    signature = [(x.name, x.type, len(x.shape)) for x in session.get_inputs()]
    assert signature == [
        ("input_values", "tensor(float)", 2),
        ("input_lengths", "tensor(int64)", 1),
    ]
    assert [x.name for x in session.get_outputs()] == ["logprobs"]
    bundle = Bundle.load(for_onnx_asr)
    assert (bundle.profile, bundle.normalize) == ("onnx-asr", False)
    assert "es/config.json" in bundle.languages["es"].files


def test_a_padded_batch_reads_as_each_clip_alone(for_onnx_asr, plain):
    """The client's rules, on a front end with a norm over time."""
    session = onnxruntime.InferenceSession(
        for_onnx_asr / "es" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    rows = clips()
    lengths = np.array([len(clip) for clip in rows])
    batch = np.full((len(rows), lengths.max()), 5.0, np.float32)
    for row, clip in zip(batch, rows, strict=True):
        row[: len(clip)] = clip
    (logprobs,) = session.run(
        ["logprobs"], {"input_values": batch, "input_lengths": lengths}
    )
    counts = np.minimum(lengths // 320 + 1, logprobs.shape[1])
    ours = Recognizer(plain, "es", "cpu")
    also = Recognizer(for_onnx_asr, "es", "cpu")
    symbols = load_tokens(for_onnx_asr / "es" / "vocab.txt")
    for clip, got, count in zip(rows, logprobs, counts, strict=True):
        logits = ours.logits(clip).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        frames = len(expected)
        np.testing.assert_allclose(got[:frames, 2:], expected[:, 2:], atol=1e-4)
        assert count > frames or len(clip) == lengths.max()
        assert (got[frames:].argmax(1) == 0).all()
        path, last, text = got[:count].argmax(1), 0, ""
        for token in path:
            text += symbols[token] if token not in (0, last) else ""
            last = token
        text = " ".join(text.replace("▁", " ").split())
        assert text == ours.transcribe(clip).text
        assert text == also.transcribe(clip).text


def test_onnx_asr_itself_reads_what_we_read(for_onnx_asr, plain):
    onnx_asr = pytest.importorskip("onnx_asr")
    try:
        client = onnx_asr.load_model("wav2vec2-ctc", for_onnx_asr / "es")
    except Exception as error:
        pytest.skip(f"this onnx-asr does not know wav2vec2-ctc: {error}")
    ours = Recognizer(plain, "es", "cpu")
    rows = clips()
    for clip, text in zip(rows, client.recognize(rows), strict=True):
        assert text == ours.transcribe(clip).text


def test_checking_again_asks_the_clients_again(for_sherpa, for_onnx_asr):
    for folder, name in [
        (for_sherpa, "rules of sherpa-onnx"),
        (for_onnx_asr, "rules of onnx-asr"),
    ]:
        again = check_bundle(folder)
        assert again == Bundle.load(folder).parity
        assert again["zh"]["client"].startswith(name)


@pytest.mark.parametrize("profile", ["sherpa-onnx", "onnx-asr"])
def test_a_client_that_reads_otherwise_is_found(
    masked, tmp_path, monkeypatch, profile
):
    right = clients._restated

    def wrong(*arguments):
        read = right(*arguments)
        return lambda clip: read(clip) + "x"

    monkeypatch.setattr(clients, "_restated", wrong)
    with pytest.raises(VerificationError, match=f"rules of {profile} reads"):
        make_bundle(masked[:1], tmp_path / "b", profile=profile)
    assert not (tmp_path / "b").exists()


def test_a_graph_that_ignores_lengths_is_found(
    for_onnx_asr, tmp_path, monkeypatch
):
    recognizer = Recognizer(for_onnx_asr, "es", "cpu")
    run = type(recognizer.session).run
    monkeypatch.setattr(
        type(recognizer.session),
        "run",
        lambda self, rows, lengths=None: run(self, rows),
    )
    with pytest.raises(VerificationError, match="in a padded batch"):
        clients.check_client(recognizer, clips(), 1e-4)


def test_an_encoder_that_hears_audio_as_it_is(tmp_path):
    encoder = make_encoder(tmp_path / "e", "wavlm-base")
    settings = {"do_normalize": False, "sampling_rate": 16000}
    (encoder / "preprocessor_config.json").write_text(json.dumps(settings))
    path = make_subnetwork(tmp_path / "s", encoder, normalize=False)
    with pytest.raises(SettingError, match="sherpa-onnx always normalises"):
        make_bundle([path], tmp_path / "b", profile="sherpa-onnx")
    make_bundle([path], tmp_path / "b", profile="onnx-asr")


def test_what_a_client_cannot_run_is_refused(masked, tmp_path):
    output = tmp_path / "b"
    with pytest.raises(SettingError, match="unknown profile 'sherpa'.*onnx"):
        make_bundle(masked, output, profile="sherpa")
    with pytest.raises(SettingError, match="use layout standalone"):
        make_bundle(masked, output, layout="shared", profile="onnx-asr")
    other = Subnetwork.load(masked[0])
    other.tokens[0] = "<pad>"
    other.save(tmp_path / "s")
    with pytest.raises(SettingError, match="has no token <blk>"):
        make_bundle([tmp_path / "s"], output, profile="sherpa-onnx")
    assert not output.exists()


def test_a_profile_of_the_future(plain, tmp_path):
    bundle = Bundle.load(plain)
    bundle.profile = "kaldi"
    with pytest.raises(FormatError, match="profile 'kaldi' is not known"):
        bundle._check(tmp_path)


def test_the_command_takes_a_profile(masked, tmp_path, capsys):
    folder = tmp_path / "b"
    arguments = ["export", str(masked[0]), "--output", str(folder)]
    assert main([*arguments, "--profile", "onnx-asr", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    client = report["languages"]["es"]["parity"]["client"]
    assert client == "rules of onnx-asr"
    assert (folder / "es" / "vocab.txt").is_file()
