"""Structured languages on the shared backbone: indices, and smaller graphs."""

import shutil
from collections import Counter
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from structured import make_structured
from subnetworks import FAMILIES, KINDS, SIZES, make_encoder, make_subnetwork
from transformers import Wav2Vec2Config

from s3router.errors import VerificationError
from s3router.export import gathered as module
from s3router.export.bundle import make_bundle
from s3router.export.gathered import read_gathered
from s3router.export.verification import check_bundle
from s3router.formats.bundle import BACKBONE, Bundle
from s3router.formats.describe import describe
from s3router.formats.graph_bytes import MASK_BITS
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer

FRONT_END = [8, 7, 5, 16, 3, 9]
GROUP = ["wav2vec2-base", "hubert-base", "wavlm-base", "unispeech-sat"]
HALF = ([2, 2], [32, 32])
#: Language to kept heads and channels, front end, and share removed besides.
LANGUAGES = {
    "aa": (*HALF, [], 0.0),
    "bb": (*HALF, [], 0.0),
    "cc": ([1, 0], [17, 64], FRONT_END, 0.2),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory, encoder_folder):
    """Return structured subnetworks, and an unstructured one (uu)."""
    root = tmp_path_factory.mktemp("structured")
    made = [
        make_structured(
            root / code, encoder_folder, code, *shape[:3], i, shape[3]
        )
        for i, (code, shape) in enumerate(LANGUAGES.items())
    ]
    return [*made, make_subnetwork(root / "uu", encoder_folder, "uu", 0.4)]


@pytest.fixture(scope="module")
def traces():
    """Return a list that gets what was exported for structured languages."""
    return []


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, paths, traces):
    """Return the shared bundle of all, not to be changed, and its report."""
    folder = tmp_path_factory.mktemp("mixed") / "bundle"

    def counted(model):
        traces.append(model)
        return build(model)

    build = module.build_graph
    module.build_graph = counted
    try:
        report = make_bundle(paths, folder)
    finally:
        module.build_graph = build
    return folder, report


def small_graph(folder, code):
    return onnx.load(folder / f"{code}.onnx", load_external_data=False).graph


def optimised(path, tmp_path):
    """Return the graph that onnxruntime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    path = tmp_path / "optimised.onnx"
    return onnx.load(path, load_external_data=False).graph


def test_one_backbone_serves_all_forms(mixed, paths, traces, tmp_path):
    folder, report = mixed
    assert report["layout"] == "shared"
    bundle = Bundle.load(folder)
    for code, entry in bundle.languages.items():
        assert entry.files[:2] == [f"{code}.onnx", BACKBONE]
        assert report["languages"][code]["parity"]["max_error"] < 1e-4
    make_bundle(paths[-1:], tmp_path / "alone")
    alone = (tmp_path / "alone" / BACKBONE).read_bytes()
    assert alone == (folder / BACKBONE).read_bytes()
    # aa and bb are of one shape.
    assert len(traces) == 2


def test_the_manifest_says_what_a_graph_is(mixed):
    languages = Bundle.load(mixed[0]).languages
    for code, (heads, channels, front_end, _) in LANGUAGES.items():
        details = languages[code].details
        assert details["form"] == "structured"
        assert details["heads_kept"] == heads
        assert details["channels_kept"] == channels
        assert details["front_end_kept"] == front_end
    assert "form" not in languages["uu"].details
    said = describe(mixed[0])["languages"]
    assert said["aa"]["form"] == "structured" and said["uu"]["form"] == ""


def test_a_language_has_no_weights_but_its_head(mixed):
    graph = small_graph(mixed[0], "aa")
    own = {
        tensor.name: len(tensor.raw_data)
        for tensor in graph.initializer
        if not tensor.external_data and not tensor.name.startswith("head.")
    }
    # In uint16: 16 rows of heads, 32 channels, in each of two blocks.
    cuts = {k: v for k, v in own.items() if k.endswith(("heads", "channels"))}
    assert sorted(cuts.values()) == [32, 32, 64, 64]
    assert not any(name.endswith(MASK_BITS) for name in own)
    rest = [own[name] for name in own if name not in cuts]
    assert max(rest) < 256 and sum(rest) < 1000


def test_bits_are_only_of_what_is_gathered(mixed):
    graph = small_graph(mixed[0], "cc")
    bits = {
        t.name.removesuffix(MASK_BITS): len(t.raw_data)
        for t in graph.initializer
        if t.name.endswith(MASK_BITS)
    }
    layer = "encoder.layers.{}."
    assert bits[layer.format(0) + "attention.q_proj"] == 8 * 32 // 8
    assert bits[layer.format(0) + "feed_forward.output_dense"] == 17 * 32 // 8
    assert layer.format(1) + "attention.q_proj" not in bits


@pytest.mark.parametrize("code", LANGUAGES)
def test_what_runs_is_small_and_has_no_gather(mixed, code, tmp_path):
    graph = optimised(mixed[0] / f"{code}.onnx", tmp_path)
    arrays = {t.name for t in graph.initializer}
    for node in graph.node:
        assert node.op_type not in ("Where", "Cast")
        if node.op_type == "Gather":
            # Of shapes, not of weights.
            assert node.input[0] not in arrays
    dims = {t.name: tuple(t.dims) for t in graph.initializer}
    matrices = Counter(
        dims[node.input[1]]
        for node in graph.node
        if "MatMul" in node.op_type or node.op_type == "Gemm"
        if node.input[1] in dims
    )
    heads, channels, front_end, _ = LANGUAGES[code]
    expected = Counter({(16, 32): 1, (32, 25): 1})  # projection, head
    for width in [8 * number for number in heads if number]:
        expected.update([(32, width)] * 3 + [(width, 32)])
    for width in channels:
        expected.update([(32, width), (width, 32)])
    assert matrices == expected
    convs = [tuple(t.dims)[:2] for t in graph.initializer if len(t.dims) == 3]
    sizes = [*front_end, 16] if front_end else [16] * 7
    for outputs, inputs in zip(sizes[1:], sizes[:-1], strict=True):
        assert (outputs, inputs) in convs


@pytest.mark.parametrize("mode", ["fold", "lean"])
def test_switching_between_forms(mixed, mode):
    recognizer = Recognizer(mixed[0], "uu", "cpu", mode=mode)
    clip = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    found = {}
    for code in [*LANGUAGES, "uu"] * 2:
        recognizer.switch(code)
        logits = recognizer.logits(clip)
        np.testing.assert_array_equal(found.setdefault(code, logits), logits)
    assert np.abs(found["aa"] - found["bb"]).max() > 0.1


def wrong_index(graph, name):
    for tensor in graph.initializer:
        if tensor.name == name:
            value = onnx.numpy_helper.to_array(tensor).copy()
            missing = np.setdiff1d(np.arange(64), value)[0]
            value[-1] = missing
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))


@pytest.mark.parametrize(
    ("cut", "found"),
    [
        ("feed_forward.channels", "(intermediate|output)_dense.(weight|bias)"),
        ("attention.heads", "(q|k|v|out)_proj.(weight|bias)"),
    ],
)
def test_checking_again_finds_a_wrong_index(mixed, tmp_path, cut, found):
    folder, name = tmp_path / "bundle", f"encoder.layers.1.{cut}"
    shutil.copytree(mixed[0], folder)
    model = onnx.load(folder / "aa.onnx", load_external_data=False)
    wrong_index(model.graph, name)
    onnx.save(model, folder / "aa.onnx")
    bundle = Bundle.load(folder)
    bundle.save(folder, measured=set(bundle.files) - {"aa.onnx"})
    with pytest.raises(VerificationError, match=f"layers.1.*{found} differs"):
        check_bundle(folder)


def test_zeros_are_counted_as_in_the_masks(mixed, paths):
    for path in paths:
        subnetwork = Subnetwork.load(path)
        parity = mixed[1]["languages"][subnetwork.config["language"]]["parity"]
        removed = sum((~m).sum() for m in subnetwork.masks.values())
        assert parity["zeros"] == removed
        assert parity["tensors"] == len(subnetwork.masks)


def test_gathers_are_read_as_onnxruntime_reads_them():
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    helper = onnx.helper
    cast = partial(helper.make_node, "Cast", to=onnx.TensorProto.INT32)
    graph = helper.make_graph(
        [
            cast(["rows"], ["r"]),
            cast(["columns"], ["c"]),
            helper.make_node("Gather", ["w", "r"], ["half"], axis=0),
            helper.make_node("Gather", ["half", "c"], ["out"], axis=1),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("out", 1, [2, 3])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(np.array([2, 0], np.uint16), "rows"),
            onnx.numpy_helper.from_array(np.array([3, 1, 0]), "columns"),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    got = read_gathered(graph, "w", weight)
    np.testing.assert_array_equal(got, session.run(None, {})[0])
    assert got.tolist() == [[11, 9, 8], [3, 1, 0]]
    assert read_gathered(graph, "rows", weight) is weight


@pytest.mark.slow
def test_languages_of_one_shape_whose_graphs_differ(encoder_folder, tmp_path):
    """Biases that are equal in one, single ones, and zeros elsewhere."""
    encoder = load_encoder(str(encoder_folder)).model
    with torch.no_grad():
        for block in encoder.encoder.layers:
            bias = block.feed_forward.intermediate_dense.bias
            bias.zero_()
            bias[:2] = torch.tensor([3.0, -3.0])
    changed = tmp_path / "encoder"
    shutil.copytree(encoder_folder, changed)
    encoder.save_pretrained(changed)
    paths = []
    for code, kept in (("aa", [4, 9]), ("bb", [0, 9]), ("cc", [0, 1])):
        path = make_structured(tmp_path / code, changed, code, [4, 4], [64, 64])
        made = Subnetwork.load(path)
        for layer in ("0", "1"):
            part = f"encoder.layers.{layer}.feed_forward"
            gone = np.setdiff1d(np.arange(64), np.add(kept, int(layer)))
            made.masks[f"{part}.intermediate_dense"][gone] = False
            made.masks[f"{part}.output_dense"][:, gone] = False
        paths.append(made.save(path))
    for code, kept in (("dd", 0), ("ee", 5)):
        path = make_structured(tmp_path / code, changed, code, [4, 4], [64, 64])
        made = Subnetwork.load(path)
        part = "encoder.layers.0.feed_forward"
        gone = np.setdiff1d(np.arange(64), [kept])
        made.masks[f"{part}.intermediate_dense"][gone] = False
        made.masks[f"{part}.output_dense"][:, gone] = False
        paths.append(made.save(path))
    report = make_bundle(paths, tmp_path / "bundle", layout="shared")
    for language in report["languages"].values():
        assert language["parity"]["max_error"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["shared", "standalone"])
@pytest.mark.parametrize("family", KINDS)
def test_every_family(family, layout, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", family)
    front_end = FRONT_END if family in GROUP else []
    shapes = {
        "aa": ([2, 2], [32, 32], [], 0.0),
        "bb": ([3, 0], [33, 17], front_end, 0.0),
    }
    paths = [
        make_structured(tmp_path / code, encoder, code, *shape[:3], 1)
        for code, shape in shapes.items()
    ]
    report = make_bundle(paths, tmp_path / "bundle", layout=layout)
    for language in report["languages"].values():
        assert language["parity"]["max_error"] < 1e-4
    check_bundle(tmp_path / "bundle")


@pytest.mark.slow
def test_bytes_of_a_language_in_the_depth_of_a_base_model(
    tmp_path, monkeypatch
):
    """Twelve blocks of 12 heads and 3072 channels, half of them kept."""
    sizes = {
        **SIZES,
        "hidden_size": 96,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    monkeypatch.setitem(FAMILIES, "deep", lambda: Wav2Vec2Config(**sizes))
    encoder = make_encoder(tmp_path / "encoder", "deep")
    model = load_encoder(str(encoder)).model
    for block in model.encoder.layers[::2]:
        # As before any training: equal, and so without names in the graph.
        block.feed_forward.intermediate_dense.bias.data.zero_()
    model.save_pretrained(encoder)
    path = make_structured(
        tmp_path / "s", encoder, "xx", [6] * 12, [1536] * 12, [8] * 6
    )
    report = make_bundle([path], tmp_path / "bundle")
    head = sum(v.nbytes for v in Subnetwork.load(path).head.values())
    # A head of a base model has 64 rows, here 8; uint16 each.
    rows = 12 * 6 * (64 - 8) * 2
    assert report["languages"]["xx"]["bytes"] + rows < head + 150_000
