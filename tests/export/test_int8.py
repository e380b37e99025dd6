"""Bytes for linear layers, and torch's copy of what onnxruntime does."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional

from s3router.errors import MismatchError
from s3router.export.emulate import QuantizedInputs, quantize_input
from s3router.export.graph import onnx_ir
from s3router.export.int8 import LEVELS, put_int8, quantize
from s3router.formats.graph_bytes import SCALE


def product(kind: str, weight: np.ndarray, times: int = 1):
    """Return an onnx_ir.Model of x times a weight, so many times."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 6])
    nodes, outputs = [], []
    for i in range(times):
        name, width = f"y{i}", weight.shape[1]
        nodes.append(helper.make_node(kind, ["x", "w"], [name]))
        outputs.append(
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [None, width]
            )
        )
    stored = [onnx.numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", [x], outputs, stored)
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return onnx_ir().from_proto(model)


def run(model, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def test_each_channel_has_the_finest_scale_that_reaches_its_weights():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 6)).astype(np.float32)
    weight[2] = 0
    weight[3, 4] = 0
    levels, scale = quantize(weight, axis=0)
    for row, bytes_, step in zip(weight, levels, scale, strict=True):
        for value, level in zip(row, bytes_, strict=True):
            assert abs(value - int(level) * step) <= step / 2 * (1 + 1e-6)
        assert np.abs(bytes_).max() == (LEVELS if row.any() else 0)
    assert (levels[weight == 0] == 0).all()
    turned, same = quantize(np.ascontiguousarray(weight.T), axis=1)
    np.testing.assert_array_equal(turned, levels.T)
    np.testing.assert_array_equal(same, scale)


def test_products_are_those_of_the_rounded_numbers():
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 4)).astype(np.float32)
    x = rng.standard_normal((3, 6)).astype(np.float32)
    model = product("MatMul", weight, times=2)
    put_int8(model, ["w", "elsewhere"], {"w"})
    proto = onnx_ir().to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    kinds = [node.op_type for node in proto.graph.node]
    # One input is quantised once, for both.
    assert kinds.count("DynamicQuantizeLinear") == 1
    assert kinds.count("MatMulInteger") == 2 and "MatMul" not in kinds
    names = {tensor.name for tensor in proto.graph.initializer}
    assert names == {"w", f"w{SCALE}"}
    # The range has zero in it; one of 256 steps is zero.
    low, high = min(x.min(), 0), max(x.max(), 0)
    step = (high - low) / 255
    seen = np.clip(np.rint(x / step) + np.rint(-low / step), 0, 255)
    seen = (seen - np.rint(-low / step)) * step
    scale = np.abs(weight).max(axis=0) / 64
    expected = seen @ (np.rint(weight / scale) * scale)
    for got in run(proto, x=x):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - x @ weight).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "turned"), [("Gemm", {"w"}), ("MatMul", set())]
)
def test_a_weight_that_is_used_otherwise_is_refused(kind, turned):
    model = product(kind, np.ones((6, 4), np.float32))
    with pytest.raises(MismatchError, match="does not use w as.*fp16"):
        put_int8(model, ["w"], turned)


@pytest.mark.parametrize("shift", [-9.0, -1.0, 0.0, 0.3, 9.0])
def test_inputs_are_rounded_as_onnxruntime_rounds_them(shift):
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((50, 6)) + shift).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
        "g",
        [value("x", TensorProto.FLOAT, [None, 6])],
        [
            value("q", TensorProto.UINT8, [None, 6]),
            value("s", TensorProto.FLOAT, []),
            value("z", TensorProto.UINT8, []),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    levels, step, zero = run(model, x=x)
    expected = (levels.astype(np.float32) - zero) * step
    got = quantize_input(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.unique(got).size > 50


def test_silence_stays_silence():
    assert not quantize_input(torch.zeros(3, 4)).any()


def test_only_products_with_given_weights_change():
    torch.manual_seed(0)
    first, second = torch.randn(4, 6), torch.randn(4, 6)
    bias, x = torch.randn(4), torch.randn(2, 3, 6)
    with QuantizedInputs([first]):
        plain = functional.linear(x, first)
        biased = functional.linear(x, first, bias)
        other = functional.linear(x, second, bias)
    seen = quantize_input(x)
    torch.testing.assert_close(plain, seen @ first.T)
    torch.testing.assert_close(biased, seen @ first.T + bias)
    assert torch.equal(other, functional.linear(x, second, bias))
    assert (plain - x @ first.T).abs().max() > 1e-3


def test_two_products_fit_in_sixteen_bits():
    """As they are added where a processor lacks VNNI."""
    levels, _ = quantize(np.array([[3.0, -3.0], [2.0, 0.1]], np.float32), 0)
    assert 255 * 2 * np.abs(levels.astype(int)).max() < 2**15
