"""Which provider runs, and what is said when one cannot."""

import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from toy_bundles import toy_graph

from s3router.errors import (
    FormatError,
    MissingDependencyError,
    NotFoundError,
    SettingError,
)
from s3router.runtime import providers as module
from s3router.runtime.providers import (
    CPU,
    CUDA,
    choose_providers,
    count_cuda_devices,
)
from s3router.runtime.session import open_session

no_gpu = pytest.mark.skipif(
    count_cuda_devices() > 0, reason="this machine has a CUDA device"
)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    toy_graph(tmp_path / "model.onnx", 4)
    return tmp_path / "model.onnx"


def test_runs_and_reports_the_provider(graph: Path):
    session = open_session(graph, threads=1)
    assert session.provider == session.ort.get_providers()[0]
    logits = session.run(np.full((2, 720), 0.2, np.float32))
    assert logits.shape == (2, 2, 4)
    assert (logits.argmax(-1) == 2).all()


@no_gpu
def test_without_a_gpu_nothing_is_asked_of_cuda(graph: Path, capfd):
    session = open_session(graph)
    assert session.provider == CPU
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@no_gpu
def test_cuda_wanted_and_absent(graph: Path):
    with pytest.raises(SettingError, match="(?i)cuda.* not usable here"):
        open_session(graph, "cuda")
    assert open_session(graph, "cuda,cpu").provider == CPU


def test_a_device_without_cuda_libraries(graph: Path, monkeypatch, capfd):
    """The driver shows a device, but onnxruntime falls back to the CPU."""
    monkeypatch.setattr(module, "count_cuda_devices", lambda: 1)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, CPU]
    )
    real = onnxruntime.InferenceSession

    def fall_back(path, options, providers):
        assert providers[0][0] == CUDA
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    assert choose_providers() == [CUDA, CPU]
    assert open_session(graph).provider == CPU
    with pytest.raises(SettingError, match="none of .* works here.*cuDNN"):
        open_session(graph, "cuda")
    assert capfd.readouterr().out == ""


def test_tensorrt_is_never_chosen_unasked(monkeypatch):
    monkeypatch.setattr(module, "count_cuda_devices", lambda: 1)
    everything = [module.TENSORRT, CUDA, CPU]
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: everything
    )
    assert choose_providers() == [CUDA, CPU]
    assert choose_providers("tensorrt,cpu") == [module.TENSORRT, CPU]


def test_tensorrt_is_told_to_look_for_two_of_four(graph: Path, monkeypatch):
    monkeypatch.setattr(module, "count_cuda_devices", lambda: 1)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [module.TENSORRT, CPU]
    )
    real, asked = onnxruntime.InferenceSession, []

    def fall_back(path, options, providers):
        asked.extend(providers)
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    open_session(graph, "tensorrt,cpu")
    assert asked == [(module.TENSORRT, {"trt_sparsity_enable": "1"}), CPU]


def test_unknown_provider():
    with pytest.raises(SettingError, match="unknown provider 'cdua'"):
        choose_providers(["cdua"])


def test_threads(graph: Path):
    session = open_session(graph, threads=1)
    assert session.ort.get_session_options().intra_op_num_threads == 1
    with pytest.raises(SettingError, match="threads"):
        open_session(graph, threads=0)


def test_bad_files(tmp_path: Path, graph: Path):
    with pytest.raises(NotFoundError, match="nothing.onnx"):
        open_session(tmp_path / "nothing.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.read_bytes()[:200])
    with pytest.raises(
        FormatError, match="cannot open .*broken.onnx"
    ) as caught:
        open_session(broken)
    assert "\n" not in str(caught.value)
    toy_graph(tmp_path / "other.onnx", 4, input_name="x")
    with pytest.raises(FormatError, match="no graph of s3router.*'x'"):
        open_session(tmp_path / "other.onnx")


def test_onnxruntime_missing(monkeypatch, graph: Path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_session(graph)
    text = str(caught.value)
    assert "pip install onnxruntime" in text
    assert "onnxruntime-gpu" in text
    assert "never both" in text


def test_onnxruntime_broken(monkeypatch, graph: Path):
    """What is left when one of the two packages was removed."""
    hollow = types.ModuleType("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", hollow)
    with pytest.raises(MissingDependencyError, match="uninstall both"):
        open_session(graph)
