"""Versions in a manifest are those of what is imported."""

import onnx
import onnxruntime
import torch

import s3router
from s3router.export.versions import tool_versions


def test_versions_are_those_of_the_modules():
    versions = tool_versions()
    assert versions["s3router"] == s3router.__version__
    assert versions["onnx"] == onnx.__version__
    # torch tells its build too, as in 2.11.0+cpu.
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    named = {versions.get(n) for n in ("onnxruntime", "onnxruntime-gpu")}
    assert onnxruntime.__version__ in named
