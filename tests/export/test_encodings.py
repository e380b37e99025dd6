"""Weights without their zeros: the same bits come back, and nothing is left."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from subnetworks import make_subnetwork

from s3router.cli import main
from s3router.errors import SettingError, VerificationError
from s3router.export.bundle import make_bundle
from s3router.export.encodings import NODES, encode, sizes, smallest
from s3router.export.graph import save_graph
from s3router.export.stored import StoredWeights
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork

PACKED = ("gaps", "bits", "sparse")


def matrix(shape, density, seed=0):
    """Return float32 with so many values, one of them -0.0."""
    rng = np.random.default_rng(seed)
    flat = np.zeros(shape, np.float32).reshape(-1)
    places = rng.permutation(flat.size)[: round(density * flat.size)]
    flat[places] = rng.standard_normal(len(places))
    if len(places):
        flat[places[0]] = -0.0
    return flat.reshape(shape)


def product(weight, dtype=np.float32):
    """Return a graph that multiplies its input by a weight."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rows, columns = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kind, ["N", rows])],
        [helper.make_tensor_value_info("y", kind, ["N", columns])],
        [numpy_helper.from_array(weight.astype(dtype), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return onnx_ir.from_proto(
        helper.make_model(graph, opset_imports=opset, ir_version=10)
    )


def written(model, path, encoding):
    """Encode a graph, write it, check it; return what was told, and it."""
    summary, sparse = encode(model, encoding)
    save_graph(model, path, sparse)
    onnx.checker.check_model(str(path), full_check=True)
    return summary, onnx.load(path)


def optimised(path):
    """Return a session, and the operators that it really runs."""
    options = onnxruntime.SessionOptions()
    target = path.with_name("optimised.onnx")
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(target, load_external_data=False).graph.node
    return session, Counter(node.op_type for node in nodes)


# Places beyond a byte and at both ends; sizes that are no multiple of eight.
@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize(
    ("shape", "density"),
    [
        ((64, 64), 0.1),
        ((101, 47), 0.25),
        ((101, 47), 0.002),
        ((31, 97), 0.0),
        ((300, 70), 1 / 21000),
    ],
)
def test_the_bits_of_every_weight_come_back(tmp_path, shape, density, encoding):
    weight = matrix(shape, density)
    path = tmp_path / "model.onnx"
    summary, proto = written(product(weight), path, encoding)
    assert summary["tensors"] == {encoding: 1}
    assert all(t.raw_data for t in proto.graph.initializer)
    got = StoredWeights(proto).get("w")
    assert got.shape == shape and got.tobytes() == weight.tobytes()
    session, operators = optimised(path)
    assert operators == {"MatMul": 1}
    # Rows of the unit matrix bring out the weight itself.
    (out,) = session.run(None, {"x": np.eye(shape[0], dtype=np.float32)})
    np.testing.assert_array_equal(out, weight)


@pytest.mark.parametrize("first", [0, 1, 254, 255, 256, 257, 510, 511, 999])
@pytest.mark.parametrize("second", [1, 254, 255, 256, 257, 510, 511, 512])
def test_gaps_around_the_longest_step(tmp_path, first, second):
    weight = np.zeros((4, 1000), np.float32)
    weight.reshape(-1)[[first, first + second]] = 3, 4
    path = tmp_path / "model.onnx"
    _, proto = written(product(weight), path, "gaps")
    weights = StoredWeights(proto)
    assert weights.get("w").tobytes() == weight.tobytes()
    # Which of two values at one place would win, ONNX does not say.
    places = np.cumsum(weights.get("w.gaps"), dtype=np.int64)
    assert len(np.unique(places)) == len(places)
    (out,) = optimised(path)[0].run(None, {"x": np.eye(4, dtype="f4")})
    np.testing.assert_array_equal(out, weight)


@pytest.mark.parametrize("encoding", PACKED)
def test_a_graph_of_half_precision(tmp_path, encoding):
    weight = matrix((90, 60), 0.1).astype(np.float16)
    path = tmp_path / "model.onnx"
    _, proto = written(product(weight, np.float16), path, encoding)
    assert StoredWeights(proto).get("w").tobytes() == weight.tobytes()
    eye = np.eye(90, dtype=np.float16)
    (out,) = optimised(path)[0].run(None, {"x": eye})
    np.testing.assert_array_equal(out, weight)


@pytest.mark.parametrize(
    ("density", "best"),
    # A byte a value, a bit a place, eight bytes a value: they meet at 1/8
    # and, as every 255th place costs five bytes at most, near 0.003.
    [
        (0.9, "bits"),
        (0.3, "bits"),
        (0.1, "gaps"),
        (0.02, "gaps"),
        (5e-4, "sparse"),
    ],
)
def test_the_smallest_is_chosen_and_its_size_is_true(tmp_path, density, best):
    weight = matrix((500, 400), density)
    path = tmp_path / "model.onnx"
    written(product(weight), path, "dense")
    plain = path.stat().st_size
    real = {}
    for encoding in PACKED:
        summary, proto = written(product(weight), path, encoding)
        real[encoding] = path.stat().st_size
        if summary["tensors"] == {encoding: 1}:
            # All that is not the weights, in both files: nodes and a table.
            over = real[encoding] - summary["stored"]
            assert 0 < over - (plain - weight.nbytes) < 4000
    summary, _ = written(product(weight), path, "auto")
    assert summary["name"] == best == min(real, key=real.get)
    assert path.stat().st_size == real[best] < plain
    assert summary["stored"] == summary["bytes"][best]


def test_what_has_no_zeros_is_left_alone(tmp_path):
    weight = matrix((50, 40), 1.0)
    for encoding in ("auto", *PACKED):
        path = tmp_path / "model.onnx"
        summary, proto = written(product(weight), path, encoding)
        assert summary["tensors"] == {"dense": 1}
        assert summary["stored"] == weight.nbytes
        assert [n.op_type for n in proto.graph.node] == ["MatMul"]
    size = sizes(np.zeros((30, 30), np.int64))
    assert smallest(size, "gaps") == smallest(size) == "dense"


@pytest.fixture(scope="module")
def sparse_folders(tmp_path_factory, encoder_folder):
    """Return a subnetwork that only masks, and one with tuned weights too."""
    root = tmp_path_factory.mktemp("sparse")
    masked = make_subnetwork(root / "a", encoder_folder, "aa", 0.9)
    tuned = make_subnetwork(root / "b", encoder_folder, "bb", 0.8, seed=3)
    subnetwork = Subnetwork.load(tuned)
    rng = np.random.default_rng(4)
    shape = next(iter(subnetwork.masks.values())).shape
    name = f"{next(iter(subnetwork.masks))}.weight"
    subnetwork.weights = {name: rng.standard_normal(shape).astype("f4")}
    return [masked, subnetwork.save(root / "c")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, sparse_folders):
    """Return a standalone bundle of both in each encoding, and its report."""
    root, made = tmp_path_factory.mktemp("encoded"), {}
    for encoding in ("dense", "auto", *PACKED):
        lines = []
        report = make_bundle(
            sparse_folders,
            root / encoding,
            layout="standalone",
            encoding=encoding,
            log=lines.append,
        )
        made[encoding] = root / encoding, report, lines
    return made


@pytest.mark.slow
def test_bundles_of_every_encoding_pass_and_fold(bundles, tmp_path):
    plain = bundles["dense"][0] / "aa" / "model.onnx"
    expected = optimised(plain)[1]
    for encoding in ("auto", *PACKED):
        folder, report, _ = bundles[encoding]
        assert check_bundle(folder)["aa"]["zeros"] > 8000
        for code in ("aa", "bb"):
            path = folder / code / "model.onnx"
            assert optimised(path)[1] == expected
            told = report["languages"][code]["encoding"]
            assert set(told["tensors"]) > {"dense"}
            if encoding != "auto":
                assert told["tensors"][encoding] >= 4


@pytest.mark.slow
def test_the_encoding_is_said(bundles):
    folder, report, lines = bundles["auto"]
    bytes_of = {
        name: made[1]["languages"]["aa"]["bytes"]
        for name, made in bundles.items()
    }
    # Up to what nodes take, which at 1000 weights is something.
    assert bytes_of["auto"] < min(bytes_of.values()) + NODES
    assert bytes_of["auto"] < bytes_of["dense"] - 12 * NODES
    entry = Bundle.load(folder).languages["aa"]
    assert entry.details["encoding"] == report["languages"]["aa"]["encoding"]
    assert any("aa: weights as" in line and " gaps" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gaps", "bits", "nonzeros"])
def test_one_wrong_byte_is_found(bundles, tmp_path, part):
    source = bundles["bits" if part == "bits" else "gaps"][0]
    path = source / "aa" / "model.onnx"
    content, proto = path.read_bytes(), onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith(f".{part}"):
            raw = bytearray(tensor.raw_data)
            # Two neighbours change places: sums and counts stay.
            step = 4 if part == "nonzeros" else 1
            i = next(
                i
                for i in range(0, len(raw) - step, step)
                if raw[i : i + step] != raw[i + step : i + 2 * step]
            )
            a, b = raw[i : i + step], raw[i + step : i + 2 * step]
            raw[i : i + 2 * step] = b + a
            tensor.raw_data = bytes(raw)
            break
    manifest = (source / "manifest.json").read_bytes()
    try:
        onnx.save(proto, path)
        Bundle.load(source).save(source)
        with pytest.raises(VerificationError, match="weight .* differs"):
            check_bundle(source)
    finally:
        path.write_bytes(content)
        (source / "manifest.json").write_bytes(manifest)


def test_an_unknown_encoding(tmp_path, sparse_folders, capsys):
    with pytest.raises(SettingError, match="unknown encoding 'gap'.*gaps"):
        make_bundle(sparse_folders, tmp_path / "b", encoding="gap")
    output = ["--output", str(tmp_path / "b"), "--encoding", "bit"]
    assert main(["export", *map(str, sparse_folders), *output]) == 2
    assert "unknown encoding 'bit'" in capsys.readouterr().err


def test_two_of_four_stays_in_plain_weights(tmp_path, encoder_folder):
    path = make_subnetwork(tmp_path / "s", encoder_folder, pattern="2:4")
    made = Subnetwork.load(path)
    rng = np.random.default_rng(0)
    for mask in made.masks.values():
        groups = rng.permuted(
            np.tile([True, True, False, False], (mask.size // 4, 1)), axis=1
        )
        mask[:] = groups.reshape(mask.shape)
    made.save(path)
    report = make_bundle([path], tmp_path / "b", layout="standalone")
    assert report["languages"]["xx"]["encoding"]["name"] == "dense"
    graph = onnx.load(tmp_path / "b" / "xx" / "model.onnx").graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for owner, mask in made.masks.items():
        weight = stored[f"{owner}.weight"]
        # Products take (in, out): groups of four lie along the inputs.
        groups = weight.T.reshape(-1, 4)
        assert groups.shape[0] * 4 == mask.size
        assert (np.count_nonzero(groups, axis=1) <= 2).all()
    asked = make_bundle(
        [path], tmp_path / "c", layout="standalone", encoding="bits"
    )
    assert "bits" in asked["languages"]["xx"]["encoding"]["tensors"]
    assert "bits" not in report["languages"]["xx"]["encoding"]["tensors"]
