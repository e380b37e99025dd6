"""Structured languages over a backbone of bytes: small products of bytes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from structured import make_structured
from subnetworks import KINDS, make_encoder, make_subnetwork

from s3router.errors import VerificationError
from s3router.export.bundle import make_bundle
from s3router.export.cuts import find_cuts
from s3router.export.int8 import SCALE
from s3router.export.shared import BACKBONE
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.files import folder_sizes
from s3router.formats.install import install
from s3router.formats.pack import pack
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.targets import find_blocks
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer

#: Language to kept heads and channels, front end, and share removed besides.
LANGUAGES = {
    "aa": ([2, 2], [32, 40], [], 0.0),
    "bb": ([2, 2], [32, 40], [], 0.0),
    "cc": ([1, 0], [17, 64], [8, 7, 5, 16, 3, 9], 0.2),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory, encoder_folder) -> dict[str, Path]:
    """Return structured subnetworks, and an unstructured one (uu)."""
    root = tmp_path_factory.mktemp("structured")
    made = {
        code: make_structured(
            root / code, encoder_folder, code, *shape[:3], i, shape[3]
        )
        for i, (code, shape) in enumerate(LANGUAGES.items())
    }
    made["uu"] = make_subnetwork(root / "uu", encoder_folder, "uu", 0.4)
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, paths) -> Path:
    """Return the shared bundle of all, not to be changed."""
    folder = tmp_path_factory.mktemp("mixed") / "bundle"
    make_bundle(list(paths.values()), folder, precision="int8")
    return folder


def optimised(path: Path, folder: Path) -> onnx.GraphProto:
    """Return what onnxruntime makes of a graph when it loads it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    model = onnx.load(folder / "optimised.onnx", load_external_data=False)
    onnx.load_external_data_for_model(model, str(path.parent))
    return model.graph


def kept_bytes(
    encoder: Path, subnetwork: Path
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield levels and scales of what is kept of each linear layer."""
    model = load_encoder(str(encoder)).model
    masks = Subnetwork.load(subnetwork).masks
    for block in find_blocks(model):
        names = [block.attention[role] for role in ("q", "k", "v", "out")]
        width = len(masks[names[0]]) // block.num_heads
        rows = np.any([masks[n].any(1) for n in names[:3]], axis=0)
        rows |= masks[names[3]].any(0)
        rows = rows.reshape(-1, width).any(1).repeat(width)
        fc1, fc2 = (block.feed_forward[role] for role in ("fc1", "fc2"))
        channels = masks[fc1].any(1) | masks[fc2].any(0)
        every = np.ones(len(masks[fc2]), dtype=bool)
        for name in block.linears("all"):
            weight = model.get_submodule(name).weight.detach().numpy()
            kept = {fc1: (channels, every), fc2: (every, channels)}
            kept[names[3]] = (every, rows)
            out, into = kept.get(name, (rows, every))
            scale = np.abs(weight).max(1) / np.float32(64)
            levels = np.rint(weight / scale[:, None]) * masks[name]
            if out.any() and into.any():
                yield levels[out][:, into].T.astype(np.int8), scale[out]


@pytest.mark.parametrize("code", LANGUAGES)
def test_what_runs_has_the_kept_bytes_and_no_gather(
    bundle, paths, encoder_folder, code, tmp_path
):
    graph = optimised(bundle / f"{code}.onnx", tmp_path)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Gather", "Cast", "Where"):
            assert not set(arrays).issuperset(node.input)
    got = [
        (arrays[name].shape, arrays[name].tobytes())
        for node in graph.node
        for name in node.input
        if name in arrays and arrays[name].dtype == np.int8
        if arrays[name].ndim == 2
    ]
    wanted = list(kept_bytes(encoder_folder, paths[code]))
    levels = [(one.shape, one.tobytes()) for one, _ in wanted]
    assert sorted(got) == sorted(levels) and len(got) > 6
    floats = {a.tobytes() for a in arrays.values() if a.dtype == np.float32}
    assert {scale.tobytes() for _, scale in wanted} <= floats


def test_the_graph_is_smaller_and_names_only_the_backbone(bundle):
    loaded = Bundle.load(bundle)
    for code, (heads, channels, front_end, _) in LANGUAGES.items():
        entry = loaded.languages[code]
        assert entry.details["form"] == "structured"
        assert entry.details["heads_kept"] == heads
        assert entry.details["channels_kept"] == channels
        assert entry.details["front_end_kept"] == front_end
        assert entry.files[1] == BACKBONE
        graph = onnx.load(bundle / entry.model, load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims:
                assert tensor.external_data
    assert "form" not in loaded.languages["uu"].details


def test_lean_computes_the_same(bundle):
    clip = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    fold = Recognizer(bundle, "uu", "cpu", mode="fold")
    lean = Recognizer(bundle, "uu", "cpu", mode="lean")
    found = {}
    for code in [*LANGUAGES, "uu"]:
        fold.switch(code)
        lean.switch(code)
        found[code] = fold.logits(clip)
        np.testing.assert_allclose(lean.logits(clip), found[code], atol=1e-5)
    assert np.abs(found["aa"] - found["bb"]).max() > 0.1


def test_it_travels(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r")
    install(tmp_path / "b.s3r", tmp_path / "again")
    for name in folder_sizes(bundle):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (bundle / name).read_bytes()


def altered(bundle: Path, folder: Path, change) -> Path:
    """Return a copy whose graph of aa is changed, and the manifest fits."""
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "aa.onnx", load_external_data=False)
    change(model.graph)
    onnx.save(model, folder / "aa.onnx")
    loaded = Bundle.load(folder)
    loaded.save(folder, measured=set(loaded.files) - {"aa.onnx"})
    return folder


def wrong(graph: onnx.GraphProto, cut: str) -> onnx.TensorProto:
    """Return the indices of a cut, the last of which is another one."""
    (tensor,) = (t for t in graph.initializer if t.name == cut)
    value = onnx.numpy_helper.to_array(tensor).copy()
    value[-1] = np.setdiff1d(np.arange(64), value)[0]
    return onnx.numpy_helper.from_array(value, cut)


CUTS = ["feed_forward.channels", "attention.heads"]


@pytest.mark.parametrize("cut", CUTS)
def test_a_wrong_index_is_found(bundle, tmp_path, cut):
    cut = f"encoder.layers.1.{cut}"

    def change(graph):
        changed = wrong(graph, cut)
        for tensor in graph.initializer:
            if tensor.name == cut:
                tensor.CopyFrom(changed)

    folder = altered(bundle, tmp_path / "bundle", change)
    with pytest.raises(VerificationError, match=r"layers\.1\..* differs"):
        check_bundle(folder)


def scales_only(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    """Return the gather of a weight's scales."""
    name = f"{name}.weight{SCALE}"
    (node,) = (n for n in graph.node if name in n.input)
    assert node.op_type == "Gather"
    return node


def test_a_wrong_index_of_scales_is_found(bundle, tmp_path):
    layer = "encoder.layers.1.feed_forward.intermediate_dense"

    def change(graph):
        tensor = wrong(graph, "encoder.layers.1.feed_forward.channels")
        tensor.name = "other"
        graph.initializer.append(tensor)
        cast = onnx.helper.make_node("Cast", ["other"], ["other32"], to=6)
        graph.node.insert(0, cast)
        scales_only(graph, layer).input[1] = "other32"

    folder = altered(bundle, tmp_path / "bundle", change)
    with pytest.raises(VerificationError, match=f"{layer}.weight differs"):
        check_bundle(folder)


def test_scales_of_other_channels_are_found(bundle, tmp_path):
    """As many, and no error of onnxruntime's: those of the first channels."""
    layer = "encoder.layers.0.attention.k_proj"

    def change(graph):
        node = scales_only(graph, layer)
        value = np.arange(16, dtype=np.uint16)
        graph.initializer.append(onnx.numpy_helper.from_array(value, "first"))
        cast = onnx.helper.make_node("Cast", ["first"], ["first32"], to=6)
        graph.node.insert(0, cast)
        node.input[1] = "first32"

    folder = altered(bundle, tmp_path / "bundle", change)
    kept = find_cuts(
        load_encoder(Bundle.load(bundle).encoder["name"]).model,
        Subnetwork.load(
            Bundle.load(bundle).languages["aa"].details["subnetwork"]
        ).masks,
    ).heads[0]
    assert kept.tolist() != [0, 1]
    with pytest.raises(VerificationError, match=f"{layer}.weight differs"):
        check_bundle(folder)


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_every_family(family, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", family)
    shapes = {
        "aa": ([2, 2], [32, 32], 0.0),
        "bb": ([3, 0], [33, 17], 0.2),
        "cc": ([4, 1], [0, 64], 0.0),
    }
    paths = [
        make_structured(
            tmp_path / code, encoder, code, *shape[:2], [], 1, shape[2]
        )
        for code, shape in shapes.items()
    ]
    folder = tmp_path / "bundle"
    make_bundle(paths, folder, layout="shared", precision="int8")
    languages = Bundle.load(folder).languages
    for code, (heads, channels, _) in shapes.items():
        assert languages[code].details["heads_kept"] == heads
        assert languages[code].details["channels_kept"] == channels
        Recognizer(folder, code, "cpu", mode="lean").logits(np.ones(4000, "f4"))
    check_bundle(folder)
