"""The ONNX graph: names, zeros, free dimensions, nothing private in it."""

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from subnetworks import FAMILIES, make_encoder, make_subnetwork

from s3router.export import graph as module
from s3router.export.bundle import make_bundle
from s3router.export.fold import fold
from s3router.export.graph import TRANSPOSED, export_graph
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.session import open_session


@pytest.fixture(scope="module")
def graph(exported) -> onnx.ModelProto:
    """Return the exported graph of zh-CN."""
    return onnx.load(exported[0] / "zh-CN" / "model.onnx")


def stored(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the initialisers, each the way round that torch has it."""
    metadata = {p.key: p.value for p in graph.metadata_props}
    turned = json.loads(metadata[TRANSPOSED])
    arrays = {
        t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer
    }
    return {n: a.T if n in turned else a for n, a in arrays.items()}


def test_initialisers_have_their_modules_names(graph, subnetwork_folders):
    subnetwork = Subnetwork.load(subnetwork_folders[0])
    arrays = stored(graph)
    encoder = load_encoder(subnetwork.config["encoder"])
    model = fold(encoder, subnetwork)
    expected = model.encoder.model.state_dict()
    seen = set()
    for name, value in expected.items():
        if name in arrays:
            seen.add(name)
            np.testing.assert_array_equal(arrays[name], value.numpy(), name)
    # Only what inference does not use, and a group norm's scale, which the
    # exporter gives another shape, are not there.
    unseen = [
        name
        for name in set(expected) - seen
        if name != "masked_spec_embed"
        and ".conv_layers.0.layer_norm." not in name
    ]
    assert unseen == []
    for name, value in subnetwork.head.items():
        np.testing.assert_array_equal(arrays[f"head.{name}"], value)


def test_zeros_are_the_masks(graph, subnetwork_folders):
    masks = Subnetwork.load(subnetwork_folders[0]).masks
    arrays = stored(graph)
    for name, mask in masks.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight"] != 0, mask)


def test_inputs_and_outputs(graph):
    (entry,), (exit_,) = graph.graph.input, graph.graph.output
    assert (entry.name, exit_.name) == ("input_values", "logits")

    def shape(value):
        dims = value.type.tensor_type.shape.dim
        return [d.dim_param or d.dim_value for d in dims]

    assert shape(entry) == ["batch", "samples"]
    assert shape(exit_) == ["batch", "frames", 25]


def test_only_standard_operators(graph):
    assert [(o.domain, o.version) for o in graph.opset_import] == [("", 20)]
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    # Erf instead would not be fused by onnxruntime.
    operators = {node.op_type for node in graph.graph.node}
    assert "Gelu" in operators and "Erf" not in operators


def test_metadata_and_nothing_of_this_machine(exported, graph):
    metadata = {p.key: p.value for p in graph.metadata_props}
    assert metadata["language"] == "zh-CN"
    assert metadata["sample_rate"] == "16000"
    assert metadata["normalize"] == "1"
    assert graph.producer_name == "s3router"
    content = (exported[0] / "zh-CN" / "model.onnx").read_bytes()
    for private in (b".py", b"site-packages", str(Path.cwd()).encode()):
        assert private not in content
    session = open_session(exported[0] / "zh-CN" / "model.onnx", "cpu")
    assert session.metadata["s3router.version"] == metadata["s3router.version"]


@pytest.mark.slow
def test_export_is_quiet_and_leaves_settings_alone(
    tmp_path, encoder_folder, subnetwork_folders, capfd
):
    model = fold(
        load_encoder(str(encoder_folder)),
        Subnetwork.load(subnetwork_folders[0]),
    )
    level, filters = logging.getLogger("torch.onnx").level, warnings.filters[:]
    capfd.readouterr()
    first = export_graph(model, tmp_path / "a.onnx")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert logging.getLogger("torch.onnx").level == level
    assert warnings.filters == filters
    assert first == [tmp_path / "a.onnx"]


@pytest.mark.slow
def test_the_same_bytes_every_time(tmp_path, exported, subnetwork_folders):
    make_bundle(subnetwork_folders, tmp_path / "again", encoding="dense")
    for name in ("zh-CN/model.onnx", "es/model.onnx", "manifest.json"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (exported[0] / name).read_bytes(), name


@pytest.mark.slow
def test_large_models_keep_their_weights_beside(
    tmp_path, encoder_folder, subnetwork_folders, monkeypatch
):
    monkeypatch.setattr(module, "EMBED_BELOW", 0)
    report = make_bundle(
        subnetwork_folders[:1],
        tmp_path / "bundle",
        layout="standalone",
        encoding="dense",
    )
    data = tmp_path / "bundle" / "zh-CN" / "model.onnx.data"
    assert data.stat().st_size > 90_000
    assert report["languages"]["zh-CN"]["parity"]["zeros"] == 6064
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    assert "zh-CN/model.onnx.data" in manifest["files"]
    assert "zh-CN/model.onnx.data" in manifest["languages"]["zh-CN"]["files"]


@pytest.mark.slow
def test_equal_tensors_are_no_trouble(tmp_path, encoder_folder):
    """Matrices of nothing but zeros, of which the exporter keeps one."""
    folder = make_subnetwork(tmp_path / "s", encoder_folder, sparsity=1.0)
    report = make_bundle([folder], tmp_path / "bundle", layout="standalone")
    parity = report["languages"]["xx"]["parity"]
    assert parity["zeros"] == 2 * (4 * 32 * 32 + 2 * 32 * 64)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(tmp_path, family: str):
    encoder = make_encoder(tmp_path / "enc", family)
    folder = make_subnetwork(tmp_path / "s", encoder, sparsity=0.5)
    report = make_bundle([folder], tmp_path / "bundle", layout="standalone")
    parity = report["languages"]["xx"]["parity"]
    assert parity["max_error"] < 1e-4
    assert parity["max_error_padded"] < 1e-4
    assert parity["tensors"] == 12
    assert parity["zeros"] == 8192
    # Lengths that the exporter never saw, in batches it never saw.
    model = fold(load_encoder(str(encoder)), Subnetwork.load(folder))
    session = open_session(tmp_path / "bundle/xx/model.onnx", "cpu", 1)
    for rows, samples in ((1, 401), (5, 999), (3, 7777)):
        wavs = torch.randn(rows, samples)
        got, expected = session.run(wavs.numpy()), model(wavs).numpy()
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() < 1e-4
