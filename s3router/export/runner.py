"""The graph of mode "switch": what languages differ in is its input.

`switch.runner.onnx` lies in a bundle of layout "shared" once. The weights that
some language masks, and the head, are inputs of it; the rest it takes from the
backbone. Its metadata say where the runtime finds each input: weights in the
backbone, masks and head in the graphs of the languages, as bytes that can be
read without any package for ONNX.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import VerificationError
from s3router.export.cuts import STRUCTURED
from s3router.export.graph import onnx_ir
from s3router.export.shared import SharedGraph
from s3router.formats.bundle import BACKBONE
from s3router.formats.bundle_language import BundleLanguage
from s3router.formats.graph_bytes import MASK_BITS, tensors
from s3router.runtime.recognizer import Recognizer
from s3router.runtime.switch import PLACES

#: No language can be called so: codes have no dots.
RUNNER = "switch.runner.onnx"
_HEAD = "head."


class RunnerWriter:
    """Collects languages, and writes the graph that runs them all.

    Arguments
    ---------
    graph : SharedGraph
        What the languages were made from.
    """

    def __init__(self, graph: SharedGraph) -> None:
        self._graph = graph
        self._languages: dict[str, dict[str, list[int]]] = {}

    def add(self, code: str, path: Path) -> None:
        """Note where a language has its masks and its head.

        Arguments
        ---------
        code : str
            Of the language.
        path : pathlib.Path
            Its graph, written by `SharedGraph.write`.
        """
        self._languages[code] = find_inputs(path)

    def write(self, folder: Path) -> str | None:
        """Write the graph, once all languages were added.

        Arguments
        ---------
        folder : pathlib.Path
            The bundle.

        Returns
        -------
        str or None
            The file's name; None if there is no language to run.
        """
        if not self._languages:
            return None
        names = {name for found in self._languages.values() for name in found}
        model = self._graph.model()
        stored = model.graph.initializers
        weights = {}
        for name in sorted(n for n in names if n.endswith(MASK_BITS)):
            weight = stored[f"{name.removesuffix(MASK_BITS)}.weight"]
            weights[weight.name] = weight.const_value.offset
            _make_input(model.graph, weight)
        for name in [n for n in stored if n.startswith(_HEAD)]:
            _free(model.graph, stored[name])
        places = {
            "backbone": BACKBONE,
            "weights": weights,
            "languages": self._languages,
        }
        model.metadata_props[PLACES] = json.dumps(places)
        onnx_ir().save(model, folder / RUNNER)
        return RUNNER


def find_inputs(path: str | Path) -> dict[str, list[int]]:
    """Return where in a language's graph the masks and the head lie.

    Arguments
    ---------
    path : str or path
        The graph.

    Returns
    -------
    dict
        Name of an initialiser to the offset of its bytes in the file, and its
        shape.
    """
    return {
        tensor.name: [tensor.start, *tensor.shape]
        for tensor in tensors(Path(path).read_bytes())
        if tensor.name.endswith(MASK_BITS) or tensor.name.startswith(_HEAD)
    }


def runs_on_runner(entry: BundleLanguage) -> bool:
    """Return whether mode "switch" can run a language.

    Arguments
    ---------
    entry : BundleLanguage
        Of a bundle that has a runner.

    Returns
    -------
    bool
        Whether it is a mask over weights of whole shape, and transcribes.
    """
    return entry.task == "ctc" and entry.details.get("form") != STRUCTURED


def check_runner(
    folder: str | Path,
    expected: Mapping[str, np.ndarray],
    clip: np.ndarray,
    allowed: Mapping[str, float],
    providers: str | None = "cpu",
) -> None:
    """Verify mode "switch": each language after another one, as by itself.

    Arguments
    ---------
    folder : str or path
        The bundle.
    expected : mapping of str to np.ndarray
        By language: logits (frames, tokens) of the clip, in a mode that was
        verified.
    clip : np.ndarray
        (samples,) float32.
    allowed : mapping of str to float
        By language: largest difference that passes.
    providers : str, optional
        What onnxruntime should run on.

    Raises
    ------
    VerificationError
        If a language's logits differ.
    """
    first, *others = expected
    recognizer = Recognizer(folder, first, providers, mode="switch")
    for code in [first, *others, first]:
        recognizer.switch(code)
        got = recognizer.logits(clip)
        same = got.shape == expected[code].shape
        error = np.abs(got - expected[code]).max() if same else np.inf
        # Not >=, which NaN would pass.
        if not error < allowed[code]:
            raise VerificationError(
                f"language {code}: in mode switch the logits differ from "
                f"those of mode fold by {error:.2e}"
            )


def _make_input(graph: Any, value: Any) -> None:
    """Make an initialiser a required input."""
    del graph.initializers[value.name]
    value.const_value = None
    graph.inputs.append(value)


def _free(graph: Any, value: Any) -> None:
    """Make a part of the head an input whose sizes a language chooses."""
    _make_input(graph, value)
    sizes = len(value.shape)
    _forget(value, graph.outputs[0])
    value.shape = onnx_ir().Shape(
        [f"{value.name}.{axis}" for axis in range(sizes)]
    )


def _forget(value: Any, output: Any) -> None:
    """Forget sizes that follow from the head's: not known before the run."""
    if value is output:
        value.shape = onnx_ir().Shape([*value.shape[:-1], "tokens"])
        return
    value.shape = None
    for node in value.consumers():
        for made in node.outputs:
            _forget(made, output)
