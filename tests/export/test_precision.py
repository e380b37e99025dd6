"""Precision fp16 and int8, in both layouts: sizes, numbers, faults found."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from subnetworks import FAMILIES, KINDS, make_encoder, make_subnetwork
from transformers import AutoModel

from s3router.cli import main
from s3router.errors import SettingError, VerificationError
from s3router.export import parity
from s3router.export.bundle import make_bundle
from s3router.export.emulate import quantize_input
from s3router.export.precision import LEAST, choose_types
from s3router.export.probes import probe_signal
from s3router.export.verification import check_bundle
from s3router.formats.bundle import BACKBONE, Bundle
from s3router.formats.describe import describe
from s3router.formats.graph_bytes import MASK_BITS, SCALE
from s3router.formats.subnetwork import Subnetwork
from s3router.models.bottleneck import attach_bottlenecks
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer

LAYOUTS = ("standalone", "shared")
ALL = [(one, bits) for one in LAYOUTS for bits in ("fp32", "fp16", "int8")]
FEWER = [pair for pair in ALL if pair[1] != "fp32"]
INT8 = [pair for pair in ALL if pair[1] == "int8"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, subnetwork_folders):
    """Return bundle and report of zh-CN by layout and precision."""
    root, made = tmp_path_factory.mktemp("precision"), {}

    def make(layout: str, precision: str) -> tuple[Path, dict]:
        key = (layout, precision)
        if key not in made:
            folder = root / "-".join(key)
            made[key] = (
                folder,
                make_bundle(
                    subnetwork_folders[:1],
                    folder,
                    layout=layout,
                    precision=precision,
                    # Whole, to be looked at.
                    encoding="dense" if layout == "standalone" else "auto",
                ),
            )
        return made[key]

    return make


def graph_of(folder: Path) -> Path:
    return folder / Bundle.load(folder).languages["zh-CN"].model


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return what a graph stores, those of the backbone too."""
    graph = onnx.load(path).graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


def optimised(path: Path, tmp_path: Path) -> Counter:
    """Return the operators that onnxruntime really runs, counted."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(tmp_path / "optimised.onnx", load_external_data=False)
    return Counter(node.op_type for node in graph.graph.node)


def reference(encoder: Path, subnetwork: Path, layout: str, precision: str):
    """Return transformers' own model and head, rounded by plain numpy."""
    loaded = Subnetwork.load(subnetwork)
    model = AutoModel.from_pretrained(encoder).eval().requires_grad_(False)
    norm = model.encoder.pos_conv_embed.conv
    torch.nn.utils.parametrize.remove_parametrizations(norm, "weight")
    linears = {f"{name}.weight" for name in loaded.masks}
    for name, parameter in model.state_dict().items():
        value = parameter.numpy().copy()
        mask = loaded.masks.get(name.removesuffix(".weight"), True)
        if precision == "int8" and name in linears:
            ranged = np.where(mask, value, 0) if layout != "shared" else value
            scale = np.abs(ranged).max(axis=1, keepdims=True) / 64
            value = np.rint(value / scale) * scale
        elif value.ndim >= 2 and value.size >= LEAST:
            value = value.astype(np.float16).astype(np.float32)
        parameter.copy_(torch.from_numpy(np.where(mask, value, 0)))
    if precision == "int8":
        for name in loaded.masks:
            model.get_submodule(name).register_forward_pre_hook(
                lambda _, given: quantize_input(given[0])
            )

    def logits(clip: np.ndarray) -> np.ndarray:
        samples = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        given = torch.from_numpy(samples[None].astype(np.float32))
        hidden = model(given).last_hidden_state[0].numpy()
        return hidden @ loaded.head["weight"].T + loaded.head["bias"]

    return logits


@pytest.mark.parametrize(("layout", "precision"), FEWER)
def test_logits_are_those_of_rounded_weights(
    bundles, encoder_folder, subnetwork_folders, layout, precision
):
    folder, report = bundles(layout, precision)
    noise = report["languages"]["zh-CN"]["parity"]["noise"]
    logits = reference(encoder_folder, subnetwork_folders[0], layout, precision)
    for mode in ("fold", "lean")[: 1 + (layout == "shared")]:
        recognizer = Recognizer(folder, "zh-CN", "cpu", mode=mode)
        for samples in (400, 720, 16001):
            clip = probe_signal(samples, samples)
            np.testing.assert_allclose(
                recognizer.logits(clip), logits(clip), atol=1e-4 + 2 * noise
            )
    assert (noise > 0) == (precision == "int8")
    # And both are some way off what is not rounded.
    change = report["languages"]["zh-CN"]["change"]
    assert 1e-3 < change["max_logit"] < 0.5
    assert 1e-5 < change["relative_logit"] < 0.01


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_is_undone_once_it_is_loaded(bundles, layout, tmp_path):
    """Neither a cast nor a mask of a weight is left to the run."""
    plain = optimised(graph_of(bundles("standalone", "fp32")[0]), tmp_path)
    assert optimised(graph_of(bundles(layout, "fp16")[0]), tmp_path) == plain


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_multiplied_by_fused_operators(bundles, layout, tmp_path):
    plain = optimised(graph_of(bundles("standalone", "fp32")[0]), tmp_path)
    kinds = optimised(graph_of(bundles(layout, "int8")[0]), tmp_path)
    fused = kinds["MatMulIntegerToFloat"] + kinds["DynamicQuantizeMatMul"]
    assert fused == 12
    assert kinds["MatMul"] == plain["MatMul"] - 12
    # Queries, keys and values of a layer share their input.
    assert kinds["DynamicQuantizeLinear"] == 2
    for kind in ("MatMulInteger", "Cast", "Where", "Gather", "Conv"):
        assert kinds[kind] == plain[kind], kind


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_stored_how(bundles, layout, subnetwork_folders):
    masks = Subnetwork.load(subnetwork_folders[0]).masks
    plain = arrays(graph_of(bundles(layout, "fp32")[0]))
    half = arrays(graph_of(bundles(layout, "fp16")[0]))
    byte = arrays(graph_of(bundles(layout, "int8")[0]))
    for name, value in plain.items():
        linear = name.removesuffix(".weight") in masks
        if value.dtype != np.float32 or name.startswith("s3router."):
            continue
        small = value.ndim < 2 or value.size < LEAST or name[:5] == "head."
        assert half[name].dtype == (np.float32 if small else np.float16), name
        np.testing.assert_allclose(half[name], value, rtol=1e-3, atol=1e-7)
        if linear:
            assert byte[name].dtype == np.int8, name
            scale = byte[f"{name}{SCALE}"]
            assert scale.shape == value.shape[1:]
            off = np.abs(byte[name] * scale - value)
            assert (off <= scale / 2 * (1 + 1e-5)).all(), name
            assert not byte[name][value == 0].any()
        else:
            assert byte[name].dtype == half[name].dtype, name
    assert sum(name.endswith(SCALE) for name in byte) == len(masks) == 12


def test_languages_share_bytes_and_scales(
    tmp_path, encoder_folder, subnetwork_folders
):
    other = make_subnetwork(tmp_path / "es", encoder_folder, "es", 0.8, seed=4)
    folder = tmp_path / "bundle"
    make_bundle([subnetwork_folders[0], other], folder, precision="int8")
    bundle = Bundle.load(folder)
    assert (bundle.layout, bundle.precision) == ("shared", "int8")
    zh, es = (arrays(folder / f"{code}.onnx") for code in ("zh-CN", "es"))
    for name in zh:
        mine = name.endswith(MASK_BITS) or name.startswith("head.")
        assert np.array_equal(zh[name], es[name]) != mine, name
    weights = sum(8192 for _ in range(2)) + 2 * 12 * 32
    light = onnx.load(folder / "es.onnx", load_external_data=False).graph
    inside = sum(len(t.raw_data) for t in light.initializer)
    assert inside < weights, "the weights are in the graph"
    recognizer = Recognizer(folder, "es", "cpu")
    before = recognizer.logits(probe_signal(9000, 1))
    recognizer.switch("zh-CN")
    assert np.abs(recognizer.logits(probe_signal(9000, 1)) - before).max() > 1


@pytest.mark.slow
def test_sizes(tmp_path, monkeypatch):
    """Of an encoder whose weights, not names and shapes, make the size."""
    import subnetworks

    for key, value in (("hidden_size", 256), ("intermediate_size", 1024)):
        monkeypatch.setitem(subnetworks.SIZES, key, value)
    encoder = make_encoder(tmp_path / "encoder", "wav2vec2-base")
    path = make_subnetwork(tmp_path / "s", encoder)
    masks = Subnetwork.load(path).masks
    linears = sum(mask.size for mask in masks.values())
    size = {}
    for layout, precision in ALL:
        report = make_bundle(
            [path],
            tmp_path / f"{layout}-{precision}",
            layout=layout,
            precision=precision,
            encoding="dense" if layout == "standalone" else "auto",
        )
        size[layout, precision] = report["bytes"]
    for layout in LAYOUTS:
        full, mask = size[layout, "fp32"], linears / 8 * (layout == "shared")
        assert full > 4 * linears
        assert size[layout, "fp16"] - mask < 0.52 * (full - mask)
        assert size[layout, "int8"] - mask < 0.32 * (full - mask)


def reseal(folder: Path, changed: Path) -> None:
    """Write the manifest anew after a file was altered."""
    bundle = Bundle.load(folder)
    same = set(bundle.files) - {changed.relative_to(folder).as_posix()}
    bundle.save(folder, measured=same)


def altered(folder: Path, tmp_path: Path, name: str, change) -> Path:
    """Return a copy whose graph has an initialiser changed."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = graph_of(copy)
    graph = onnx.load(path, load_external_data=False)
    (tensor,) = [t for t in graph.graph.initializer if t.name == name]
    value = arrays(path)[name].copy()
    change(value)
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    onnx.save(graph, path)
    reseal(copy, path)
    return copy


WEIGHT = "encoder.layers.1.feed_forward.output_dense.weight"


def halve(scale: np.ndarray) -> None:
    scale /= 2


def nudge(scale: np.ndarray) -> None:
    scale[3] *= np.float32(1 + 1e-6)


@pytest.mark.parametrize(("layout", "precision"), INT8)
def test_a_wrong_scale_is_found(bundles, layout, precision, tmp_path):
    folder = bundles(layout, precision)[0]
    wrong = altered(folder, tmp_path, f"{WEIGHT}{SCALE}", nudge)
    with pytest.raises(VerificationError, match=f"{WEIGHT} differs"):
        check_bundle(wrong)


@pytest.mark.parametrize(("layout", "precision"), INT8)
def test_a_wrong_scale_shows_in_the_logits(
    bundles, layout, precision, tmp_path, monkeypatch
):
    folder = bundles(layout, precision)[0]
    wrong = altered(folder, tmp_path, f"{WEIGHT}{SCALE}", halve)
    monkeypatch.setattr(parity, "check_weights", lambda *_: (12, 0))
    assert check_bundle(folder)["zh-CN"]["zeros"] == 0
    with pytest.raises(VerificationError, match="quantised activations"):
        check_bundle(wrong)


def test_a_wrong_weight_of_half_precision_is_found(bundles, tmp_path):
    def step(weight):
        weight.flat[7] = np.nextafter(weight.flat[7], np.float16(9))

    name = "feature_extractor.conv_layers.2.conv.weight"
    wrong = altered(bundles("shared", "fp16")[0], tmp_path, name, step)
    with pytest.raises(VerificationError, match=f"{name} differs"):
        check_bundle(wrong)


def test_a_wrong_bit_is_found_where_the_weight_is_zero(bundles, tmp_path):
    folder = bundles("shared", "int8")[0]
    stored = arrays(graph_of(folder))
    name = WEIGHT.removesuffix(".weight") + MASK_BITS
    keep = np.unpackbits(stored[name], bitorder="little").astype(bool)
    (at, *_) = np.flatnonzero((stored[WEIGHT].reshape(-1) == 0) & ~keep)

    def flip(bits):
        bits[at // 8] ^= 1 << (at % 8)

    wrong = altered(folder, tmp_path, name, flip)
    with pytest.raises(VerificationError, match=f"mask of {WEIGHT} differs"):
        check_bundle(wrong)


def test_a_mask_of_another_language_shows_in_the_logits(
    bundles, tmp_path, monkeypatch
):
    def shuffle(bits):
        bits[:] = np.random.default_rng(0).permutation(bits)

    name = WEIGHT.removesuffix(".weight") + MASK_BITS
    wrong = altered(bundles("shared", "int8")[0], tmp_path, name, shuffle)
    monkeypatch.setattr(parity, "check_weights", lambda *_: (12, 0))
    with pytest.raises(VerificationError, match="quantised activations"):
        check_bundle(wrong)


@pytest.mark.parametrize(("layout", "precision"), FEWER)
def test_checking_again_gives_the_numbers_of_the_manifest(
    bundles, layout, precision
):
    folder, report = bundles(layout, precision)
    assert report["precision"] == describe(folder)["precision"] == precision
    bundle = Bundle.load(folder)
    assert check_bundle(folder) == bundle.parity
    assert bundle.change["zh-CN"] == report["languages"]["zh-CN"]["change"]
    # All that the mask removes is zero, and what was rounded to zero.
    zeros = bundle.parity["zh-CN"]["zeros"]
    assert 6064 <= zeros < 6064 * 1.05


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", KINDS)
def test_every_family(family, precision, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", family)
    path = make_subnetwork(tmp_path / "s", encoder, sparsity=0.4)
    odd = list(FAMILIES).index(family) % 2
    layout = LAYOUTS[odd ^ (precision == "int8")]
    report = make_bundle(
        [path], tmp_path / "bundle", layout=layout, precision=precision
    )
    numbers = report["languages"]["xx"]["parity"]
    assert numbers["max_error"] < 1e-4 + 2 * numbers["noise"]
    # The input of WavLM's attention is quantised in torch too.
    assert numbers["noise"] < 0.02
    kinds = Counter(
        n.op_type
        for n in onnx.load(
            Bundle.load(tmp_path / "bundle").path(
                Bundle.load(tmp_path / "bundle").languages["xx"].model
            ),
            load_external_data=False,
        ).graph.node
    )
    assert kinds["MatMulInteger"] == (12 if precision == "int8" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tuned_weights(subnetwork_folders, precision, tmp_path):
    folder = tmp_path / "bundle"
    report = make_bundle(subnetwork_folders[1:], folder, precision=precision)
    assert report["layout"] == "standalone"
    tuned = Subnetwork.load(subnetwork_folders[1]).weights[WEIGHT]
    stored = arrays(folder / "es" / "model.onnx")
    got = stored[WEIGHT].astype(np.float32)
    got *= stored.get(f"{WEIGHT}{SCALE}", np.float32(1))
    np.testing.assert_allclose(got.T, tuned, atol=np.abs(tuned).max() / 120)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_bottleneck_adapters(encoder_folder, precision, tmp_path):
    torch.manual_seed(0)
    encoder = load_encoder(str(encoder_folder)).model
    weights = attach_bottlenecks(encoder, 24)
    path = make_subnetwork(
        tmp_path / "s", encoder_folder, sparsity=0, adapter_width=24
    )
    subnetwork = Subnetwork.load(path)
    subnetwork.masks = {}
    subnetwork.weights = {
        name: torch.randn_like(value).numpy() / 9
        for name, value in weights.items()
    }
    path = subnetwork.save(tmp_path / "adapted")
    report = make_bundle([path], tmp_path / "bundle", precision=precision)
    numbers = report["languages"]["xx"]["parity"]
    assert numbers["max_error"] < 1e-4 + 2 * numbers["noise"]
    kinds = {
        a.dtype
        for n, a in arrays(tmp_path / "bundle/xx/model.onnx").items()
        if ".bottleneck." in n and a.ndim > 1
    }
    assert kinds == {np.dtype(np.float16)}


def test_what_half_precision_cannot_hold(encoder_folder, tmp_path):
    path = make_subnetwork(tmp_path / "s", encoder_folder, tuned=True)
    subnetwork = Subnetwork.load(path)
    subnetwork.weights[WEIGHT][0, 0] = 70000
    path = subnetwork.save(tmp_path / "large")
    with pytest.raises(SettingError, match=f"{WEIGHT} has entries.*use fp32"):
        make_bundle([path], tmp_path / "bundle", precision="fp16")
    assert not (tmp_path / "bundle").exists()


def test_only_transformer_layers_become_bytes(encoder_folder):
    model = load_encoder(str(encoder_folder)).model
    kinds = choose_types(model, "int8")
    assert choose_types(model, "fp32") == {}
    for name, kind in kinds.items():
        inside = name.startswith("encoder.layers.") and "norm" not in name
        assert (kind == "int8") == inside, name
    assert "feature_projection.projection.weight" in kinds


def test_an_unknown_precision(subnetwork_folders, tmp_path, capsys):
    given = ["export", str(subnetwork_folders[0]), "--precision", "fp8"]
    assert main([*given, "--output", str(tmp_path / "b")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "unknown precision 'fp8'" in line and "fp32, fp16, int8" in line
    assert not (tmp_path / "b").exists()


def test_int8_backbone_is_smaller(bundles):
    size = {
        bits: (bundles("shared", bits)[0] / BACKBONE).stat().st_size
        for bits in ("fp32", "fp16", "int8")
    }
    assert size["fp32"] > size["fp16"] > size["int8"]
