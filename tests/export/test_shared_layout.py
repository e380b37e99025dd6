"""Layout "shared": one file of weights, a mask and a head for each language."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from subnetworks import FAMILIES, make_encoder, make_subnetwork

from s3router.errors import (
    FormatError,
    NotFoundError,
    SettingError,
    VerificationError,
)
from s3router.export.bundle import make_bundle
from s3router.export.fold import fold
from s3router.export.probes import probe_signal
from s3router.export.runner import RUNNER
from s3router.export.shared import pack, unpacking_table
from s3router.export.verification import check_bundle
from s3router.formats.bundle import BACKBONE, Bundle
from s3router.formats.describe import describe
from s3router.formats.graph_bytes import MASK_BITS
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer


@pytest.fixture(scope="module")
def masked(tmp_path_factory, encoder_folder):
    """Return three subnetworks that only mask: 37, 10 and 0 %."""
    root = tmp_path_factory.mktemp("masked")
    return [
        make_subnetwork(root / code, encoder_folder, code, share, seed=seed)
        for seed, (code, share) in enumerate(
            [("zh-CN", 0.37), ("es", 0.1), ("ru", 0.0)]
        )
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, masked):
    """Return the bundle of all, not to be changed, and its report."""
    folder = tmp_path_factory.mktemp("shared") / "bundle"
    return folder, make_bundle(masked, folder)


def test_masked_subnetworks_share_a_backbone_unless_told_otherwise(shared):
    folder, report = shared
    assert report["layout"] == Bundle.load(folder).layout == "shared"
    assert sorted(path.name for path in folder.iterdir()) == [
        BACKBONE,
        *("es.onnx", "es.tokens.txt", "manifest.json"),
        *("ru.onnx", "ru.tokens.txt", RUNNER),
        *("zh-CN.onnx", "zh-CN.tokens.txt"),
    ]
    for code, entry in Bundle.load(folder).languages.items():
        own = sum((folder / f).stat().st_size for f in entry.files[::2])
        assert entry.files[1] == BACKBONE
        assert report["languages"][code]["bytes"] == own
        assert BACKBONE not in Bundle.load(folder).own_files(code)
        assert describe(folder)["languages"][code]["bytes"] == own


def test_a_language_costs_its_bits_its_head_and_a_graph(shared, masked):
    for path in masked:
        subnetwork = Subnetwork.load(path)
        code = subnetwork.config["language"]
        graph = onnx.load(shared[0] / f"{code}.onnx", load_external_data=False)
        own = {
            tensor.name: len(tensor.raw_data)
            for tensor in graph.graph.initializer
            if not tensor.external_data
        }
        bits = sum(
            size for name, size in own.items() if name.endswith(MASK_BITS)
        )
        assert bits == sum(m.size / 8 for m in subnetwork.masks.values())
        head = sum(value.nbytes for value in subnetwork.head.values())
        # And the table, and shapes.
        assert sum(own.values()) < bits + head + 5000


def test_the_backbone_has_the_weights_of_the_encoder(shared, encoder_folder):
    encoder = load_encoder(str(encoder_folder)).model
    graph = onnx.load(shared[0] / "es.onnx")
    stored = {t.name: t for t in graph.graph.initializer}
    for name, weight in encoder.named_parameters():
        if name.endswith("_proj.weight") and "layers" in name:
            value = onnx.numpy_helper.to_array(stored[name])
            expected = weight.detach().numpy()
            assert (value == expected).all() or (value.T == expected).all()
    light = onnx.load(shared[0] / "es.onnx", load_external_data=False)
    offsets = [
        int(entry.value)
        for tensor in light.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert len(set(offsets)) == len(offsets) > 20


@pytest.mark.parametrize("mode", ["fold", "lean", "switch"])
def test_every_language_reads_as_torch_does(shared, masked, mode):
    recognizer = Recognizer(shared[0], "zh-CN", "cpu", mode=mode)
    for path in [*masked, masked[0]]:
        subnetwork = Subnetwork.load(path)
        recognizer.switch(subnetwork.config["language"])
        model = fold(load_encoder(subnetwork.config["encoder"]), subnetwork)
        clip = probe_signal(9000, 3)
        samples = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        with torch.no_grad():
            expected = model(torch.from_numpy(samples[None]))[0].numpy()
        got = recognizer.logits(clip)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def optimised(path, tmp_path, **entries):
    """Return the operators that onnxruntime really runs, counted."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    return Counter(node.op_type for node in graph.graph.node)


def test_nothing_of_the_decoding_is_left_once_it_is_loaded(
    shared, masked, tmp_path
):
    plain = tmp_path / "plain"
    make_bundle(masked[:1], plain, layout="standalone")
    expected = optimised(plain / "zh-CN" / "model.onnx", tmp_path)
    assert optimised(shared[0] / "zh-CN.onnx", tmp_path) == expected


def test_lean_leaves_the_weights_to_the_run(shared, tmp_path):
    path = shared[0] / "zh-CN.onnx"
    entry = "optimization.constant_folding_max_output_size_in_bytes"
    # As small as these weights are, which real ones are not.
    left = optimised(path, tmp_path, **{entry: "64"})
    assert left["Where"] == 12 and left["Cast"] >= 12


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shares(family, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", family)
    paths = [
        make_subnetwork(tmp_path / "a", encoder, "xx", 0.3),
        make_subnetwork(tmp_path / "b", encoder, "yy", 0.6, seed=2),
    ]
    report = make_bundle(paths, tmp_path / "bundle", layout="shared")
    for language in report["languages"].values():
        assert language["parity"]["max_error"] < 1e-4


def test_checking_again_finds_one_wrong_bit(shared, masked, tmp_path):
    report = check_bundle(shared[0])
    assert report["zh-CN"]["zeros"] > report["es"]["zeros"] > 0
    folder = tmp_path / "bundle"
    make_bundle(masked[:1], folder)
    graph = onnx.load(folder / "zh-CN.onnx", load_external_data=False)
    (bits, *_) = [
        t for t in graph.graph.initializer if t.name.endswith(MASK_BITS)
    ]
    raw = bytearray(bits.raw_data)
    raw[0] ^= 1
    bits.raw_data = bytes(raw)
    onnx.save(graph, folder / "zh-CN.onnx")
    bundle = Bundle.load(folder)
    bundle.save(folder, measured=[BACKBONE, "zh-CN.tokens.txt"])
    with pytest.raises(VerificationError, match="differs"):
        check_bundle(folder)


def test_awkward_sizes_round_trip_through_the_table():
    rng = np.random.default_rng(0)
    for shape in [(3, 5), (1, 1), (8, 8), (7, 13)]:
        mask = rng.random(shape) > 0.5
        flat = unpacking_table()[pack(mask)].reshape(-1)[: mask.size]
        assert (flat.reshape(shape) == mask).all()


def test_layers_of_awkward_sizes_are_cut_to_size(tmp_path):
    """60 x 30 weights: not a multiple of eight."""
    from subnetworks import SIZES
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    sizes = {
        **SIZES,
        "hidden_size": 30,
        "intermediate_size": 61,
        "num_attention_heads": 3,
        "num_conv_pos_embedding_groups": 3,
        "num_hidden_layers": 1,
    }
    encoder = tmp_path / "encoder"
    Wav2Vec2Model(Wav2Vec2Config(**sizes)).save_pretrained(encoder)
    settings = {"do_normalize": True, "sampling_rate": 16000}
    (encoder / "preprocessor_config.json").write_text(json.dumps(settings))
    path = make_subnetwork(tmp_path / "s", encoder, "xx", 0.3)
    report = make_bundle([path], tmp_path / "bundle", layout="shared")
    assert report["languages"]["xx"]["parity"]["max_error"] < 1e-4


def test_tuned_weights_cannot_be_shared(subnetwork_folders, tmp_path):
    with pytest.raises(SettingError, match="has weights of its own.*'full'"):
        make_bundle(subnetwork_folders, tmp_path / "b", layout="shared")
    assert not (tmp_path / "b").exists()


def test_lean_wants_a_shared_bundle(exported):
    with pytest.raises(SettingError, match="layout shared"):
        Recognizer(exported[0], "es", "cpu", mode="lean")
    with pytest.raises(SettingError, match="unknown mode 'leen'.*lean"):
        Recognizer(exported[0], "es", "cpu", mode="leen")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda path: path.unlink(), NotFoundError, "lacks a file"),
        (lambda path: path.write_bytes(b"x"), FormatError, "truncated"),
    ],
)
def test_a_damaged_backbone_is_refused(masked, tmp_path, damage, error, words):
    make_bundle(masked[:1], tmp_path / "bundle")
    damage(tmp_path / "bundle" / BACKBONE)
    with pytest.raises(error, match=words):
        Recognizer(tmp_path / "bundle", "zh-CN", "cpu")


def test_it_runs_without_torch_and_onnx(shared, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from s3router.runtime.recognizer import Recognizer\n"
        "r = Recognizer(sys.argv[1], 'es', 'cpu', mode='lean')\n"
        "print(repr(r.transcribe(np.zeros(8000, 'f4')).language))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared[0])],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "'es'", done.stderr
