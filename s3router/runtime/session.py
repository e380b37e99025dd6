"""Opens an ONNX graph in onnxruntime and says on what it really runs.

onnxruntime falls back to the CPU without an error, so the session is asked
afterwards.
"""

import contextlib
import ctypes
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import FormatError, NotFoundError, SettingError, one_of
from s3router.runtime.cores import usable_cores
from s3router.runtime.providers import (
    CUDA,
    TENSORRT,
    choose_providers,
    import_onnxruntime,
    why_not,
)

INPUT = "input_values"
OUTPUT = "logits"
#: What graphs for onnx-asr have: (batch,) int64, and log-probabilities.
LENGTHS = "input_lengths"
LOGPROBS = "logprobs"
_SIGNATURES = (([INPUT], [OUTPUT]), ([INPUT, LENGTHS], [LOGPROBS]))

#: How weights are held, see `open_session`.
MODES = ("fold", "lean", "switch")
_LEAN = {
    # In bytes; what is smaller, as shapes, is folded all the same.
    "optimization.constant_folding_max_output_size_in_bytes": str(1 << 16),
    # Copies of weights, arranged for the kernels.
    "session.disable_prepacking": "1",
}

_OPTIONS = {
    CUDA: {
        # The default searches for the best algorithm anew at each new length.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 has 10 bits of mantissa: errors near 1e-3 in the logits.
        "use_tf32": "0",
    },
    # It looks for weights of pattern 2:4, and leaves others as they are.
    TENSORRT: {"trt_sparsity_enable": "1"},
}


@dataclass(frozen=True)
class Session:
    """An open graph.

    Arguments
    ---------
    ort : onnxruntime.InferenceSession
        The session; `run` may be called from several threads.
    provider : str
        What it really runs on: the first of `ort.get_providers()`.
    """

    ort: Any
    provider: str

    def run(
        self, input_values: np.ndarray, lengths: Sequence[int] | None = None
    ) -> np.ndarray:
        """Return the logits of audio that is as the bundle wants it.

        Arguments
        ---------
        input_values : np.ndarray
            (batch, samples) float32.
        lengths : sequence of int, optional
            Samples of each row without its padding, for graphs that take
            them; all, if not given.

        Returns
        -------
        np.ndarray
            (batch, frames, tokens) float32; (batch, classes) of a task that
            classifies; log-probabilities of graphs for onnx-asr.
        """
        feed = {INPUT: input_values}
        if len(self.ort.get_inputs()) > 1:
            rows, samples = input_values.shape
            if lengths is None:
                lengths = [samples] * rows
            feed[LENGTHS] = np.asarray(lengths, dtype=np.int64)
        return self.ort.run(None, feed)[0]

    @property
    def vocabulary(self) -> int:
        """Return how many tokens the logits are for."""
        return self.ort.get_outputs()[0].shape[-1]

    @property
    def metadata(self) -> dict[str, str]:
        """Return what export wrote into the graph."""
        return dict(self.ort.get_modelmeta().custom_metadata_map)


def open_session(
    path: str | Path,
    providers: Sequence[str] | str | None = None,
    threads: int | None = None,
    mode: str = "fold",
) -> Session:
    """Open an ONNX graph.

    Arguments
    ---------
    path : str or Path
        The graph. Files of external data lie beside it.
    providers : sequence of str or str, optional
        "cpu", "cuda", "tensorrt" or onnxruntime's names, best first. If not
        given, CUDA where it is usable, else CPU.
    threads : int, optional
        Threads of one operator; if not given, one for each core that this
        process may use.
    mode : str
        "fold": weights are masked and arranged for speed once, at loading,
        in memory of this session alone. "lean": they stay in their file,
        which is mapped and which all sessions share, and are masked anew in
        each run. "switch": those that are masked are inputs, see
        `s3router.runtime.switch`.

    Returns
    -------
    Session
        The open graph.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is no graph, or has other inputs and outputs.
    SettingError
        If a provider or the mode is unknown, or none of the providers asked
        for is usable here.
    MissingDependencyError
        If onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such ONNX file: {path}")
    wanted = choose_providers(providers)
    ort = import_onnxruntime()
    options = _session_options(ort, threads)
    if one_of(mode, MODES, "mode") == "lean":
        for key, value in _LEAN.items():
            options.add_session_config_entry(key, value)
        # It warns of each weight that it was told not to fold.
        options.log_severity_level = 3
    with _quiet(ort, CUDA in wanted or TENSORRT in wanted):
        try:
            session = ort.InferenceSession(
                str(path),
                options,
                providers=[
                    (name, _OPTIONS[name]) if name in _OPTIONS else name
                    for name in wanted
                ],
            )
        except Exception as error:
            # onnxruntime's errors share no base class but Exception.
            raise FormatError(
                f"onnxruntime cannot open {path}: {_one_line(error)}"
            ) from error
    _give_back_memory()
    _check_signature(session, path, mode)
    provider = session.get_providers()[0]
    if providers is not None and provider not in wanted:
        raise SettingError(
            f"none of the wanted providers ({', '.join(wanted)}) works here; "
            f"onnxruntime would run on {provider}. {why_not(wanted[0])}"
        )
    return Session(session, provider)


def _session_options(ort: Any, threads: int | None) -> Any:
    """Return onnxruntime's options for a number of threads."""
    options = ort.SessionOptions()
    options.inter_op_num_threads = 1
    if threads is not None:
        if threads < 1:
            raise SettingError(f"threads must be at least 1, not {threads}")
        options.intra_op_num_threads = int(threads)
    else:
        allowed = usable_cores()
        # In a container with fewer cores, onnxruntime's own count is that of
        # the machine, and it complains of each core that it may not use.
        if allowed < (os.cpu_count() or allowed):
            options.intra_op_num_threads = allowed
    return options


@contextlib.contextmanager
def _quiet(ort: Any, wants_gpu: bool):
    """Load CUDA's libraries and mute onnxruntime's complaints meanwhile.

    What it complains of is reported by us, in one line, where it matters.
    """
    if not wants_gpu:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):
            with contextlib.suppress(Exception):
                ort.preload_dlls()
        ort.set_default_logger_severity(4)
        try:
            yield
        finally:
            # The default; onnxruntime does not tell what it was.
            ort.set_default_logger_severity(2)


def _give_back_memory() -> None:
    """Return what loading needed on the way to the system.

    glibc would keep it, which was half as much again as the weights.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _check_signature(session: Any, path: Path, mode: str) -> None:
    """Raise FormatError if a graph has other inputs or outputs than ours."""
    inputs = [x.name for x in session.get_inputs()]
    outputs = [x.name for x in session.get_outputs()]
    if mode == "switch":
        # What follows are weights.
        inputs = inputs[:1]
    if (inputs, outputs) not in _SIGNATURES:
        raise FormatError(
            f"{path} is no graph of s3router: it maps {inputs} to {outputs}, "
            f"not ['{INPUT}'] to ['{OUTPUT}']"
        )


def _one_line(error: Exception) -> str:
    """Return an error's text without line breaks, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
