"""Tensors in the bytes of a graph: where onnx says that they are."""

import numpy as np
import onnx
import pytest
from bundle_writer import write_bundle
from onnx import helper, numpy_helper

from s3router.errors import FormatError
from s3router.formats.graph_bytes import FLOAT16, FLOAT32, UINT8, tensors


@pytest.fixture
def path(tmp_path):
    """Return a graph with tensors of many shapes, and external ones."""
    rng = np.random.default_rng(0)
    weights = {
        "a": rng.standard_normal((300, 500)).astype("f4"),
        "b": rng.standard_normal((3, 5)).astype("f2"),
    }
    masks = {name: weight > 0 for name, weight in weights.items()}
    folder = write_bundle(tmp_path / "b", weights, {"xx": masks})
    model = onnx.load(folder / "xx.onnx", load_external_data=False)
    arrays = {
        "scalar": np.float32(3),
        "empty": np.zeros((0, 4), np.float32),
        "long": rng.integers(0, 255, (2, 3, 4, 5)).astype(np.uint8),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in arrays.items()
    )
    # Not as raw bytes, and of a negative number, which takes ten bytes.
    model.graph.initializer.append(
        helper.make_tensor("listed", onnx.TensorProto.INT64, [2], [-1, 5])
    )
    onnx.save(model, folder / "xx.onnx")
    return folder / "xx.onnx"


def test_every_tensor_is_where_onnx_says(path):
    content = path.read_bytes()
    expected = onnx.load(path, load_external_data=False).graph.initializer
    found = list(tensors(content))
    assert [t.name for t in found] == [t.name for t in expected]
    for got, want in zip(found, expected, strict=True):
        assert got.shape == tuple(want.dims)
        assert got.dtype == want.data_type
        assert content[got.start : got.stop] == want.raw_data
        stated = {entry.key: entry.value for entry in want.external_data}
        assert got.external == stated
    kinds = onnx.TensorProto
    assert (FLOAT32, UINT8, FLOAT16) == (
        kinds.FLOAT,
        kinds.UINT8,
        kinds.FLOAT16,
    )


def test_shapes_of_other_writers(path):
    """Each number of a shape may be a field of its own."""
    tensor = bytes([0x08, 3, 0x08, 0x80, 2, 0x10, 2, 0x42, 1, 97, 0x4A, 1, 7])
    graph = bytes([0x2A, len(tensor)]) + tensor
    content = bytes([0x3A, len(graph)]) + graph
    want = onnx.load_from_string(content).graph.initializer[0]
    (got,) = tensors(content)
    assert got.shape == tuple(want.dims) == (3, 256)
    assert (got.name, content[got.start : got.stop]) == ("a", want.raw_data)


def test_what_is_no_graph(path):
    content = path.read_bytes()
    for data in (content[:-1], content[:1000], b"\xff" * 30, b"\x3b"):
        with pytest.raises(FormatError, match="no ONNX graph"):
            list(tensors(data))
    assert list(tensors(b"")) == []
