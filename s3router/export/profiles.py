"""Graphs that other programs run as they are: sherpa-onnx and onnx-asr.

    sherpa-onnx   audio normalised by the client, with a floor of its own;
                  logits; tokens.txt. In its slot for omnilingual CTC models.
    onnx-asr      a folder `model.onnx`, `vocab.txt`, `config.json` for each
                  language; audio as recorded, and lengths; log-probabilities.

Both print every token that is not blank, the unknown one too, which is no
text. So the graphs say blank where that one would win. What a client reads is
then what our recogniser reads.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import SettingError, one_of
from s3router.export.fold import FoldedModel
from s3router.export.graph import constant, onnx_ir
from s3router.export.padded import NEVER, PaddedModel
from s3router.formats.bundle import PROFILES
from s3router.formats.bundle_language import BundleLanguage
from s3router.formats.files import write_json
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.audio import VARIANCE_FLOOR
from s3router.runtime.decode import WORD_START

#: What sherpa-onnx adds to the variance of the audio.
SHERPA_FLOOR = 1e-5
#: The name of the blank that both clients look for.
CLIENT_BLANK = "<blk>"
_SHERPA, _ONNX_ASR = PROFILES[1:]


def check_profile(
    profile: str,
    layout: str | None,
    precision: str,
    subnetworks: Mapping[str, Subnetwork],
) -> str | None:
    """Refuse what a client cannot run.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    layout : str, optional
        As asked for.
    precision : str
        Of the bundle.
    subnetworks : mapping of str to Subnetwork
        By a name for messages.

    Returns
    -------
    str or None
        The layout: "standalone" for onnx-asr, which opens folders of fixed
        file names, and for bytes in sherpa-onnx, whose onnxruntime has no mask
        for them; else as asked for.

    Raises
    ------
    SettingError
        If profile, layout, task, tokens or normalisation do not fit.
    """
    if one_of(profile, PROFILES, "profile") == PROFILES[0]:
        return layout
    for name, one in subnetworks.items():
        where = f"profile {profile}: {name}"
        if one.config["task"] != "ctc":
            raise SettingError(
                f"{where} is of task {one.config['task']}, and this client "
                "runs CTC only; export it with profile s3router"
            )
        if CLIENT_BLANK not in one.tokens:
            raise SettingError(
                f"{where} has no token {CLIENT_BLANK}, by which this client "
                "finds the blank"
            )
        if profile == _SHERPA and not one.config.get("normalize", True):
            raise SettingError(
                f"{where} is of an encoder that hears audio as it is, but "
                "sherpa-onnx always normalises; use profile onnx-asr or "
                "s3router"
            )
    if profile == _ONNX_ASR:
        if layout == "shared":
            raise SettingError(
                "profile onnx-asr: each language is a folder of its own, and "
                "onnxruntime opens no weights outside of it; use layout "
                "standalone"
            )
        return "standalone"
    if precision == "int8":
        if layout == "shared":
            raise SettingError(
                "profile sherpa-onnx: the onnxruntime in it cannot mask bytes; "
                "use layout standalone, or precision fp16"
            )
        return "standalone"
    return layout


def client_model(
    profile: str, model: FoldedModel, blank: int
) -> FoldedModel | PaddedModel:
    """Return what is exported for a client.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    model : FoldedModel
        The truth.
    blank : int
        Id of the CTC blank.

    Returns
    -------
    FoldedModel
        Another one for onnx-asr, over the same weights.
    """
    return PaddedModel(model, blank) if profile == _ONNX_ASR else model


def audio_wanted(profile: str, normalize: bool) -> tuple[bool, float]:
    """Return whether graphs want normalised audio, and over which floor.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    normalize : bool
        Whether the encoder wants it.

    Returns
    -------
    tuple of bool and float
        For the manifest.
    """
    floor = SHERPA_FLOOR if profile == _SHERPA else VARIANCE_FLOOR
    return normalize and profile != _ONNX_ASR, floor


def tokens_name(profile: str, name: str) -> str:
    """Return where the tokens lie, from where a layout puts them."""
    if profile == _ONNX_ASR:
        return str(Path(name).with_name("vocab.txt").as_posix())
    return name


def client_graph(
    profile: str, model: Any, entry: BundleLanguage, tokens: Sequence[str]
) -> None:
    """Make a graph, as it is for us, a client's.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    model : onnx_ir.Model
        Changed in place.
    entry : BundleLanguage
        The language.
    tokens : sequence of str
        Its symbols.
    """
    if profile == PROFILES[0]:
        return
    if silent := silent_ids(entry, tokens):
        _silence(model.graph, entry.blank, silent)
    if profile == _SHERPA:
        _undo_floor(model.graph)


def client_files(profile: str, folder: Path, graph: str, hop: int) -> list[str]:
    """Write what a client wants beside a graph and its tokens.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    folder : pathlib.Path
        The bundle.
    graph : str
        Path of the graph in it.
    hop : int
        Samples between frames.

    Returns
    -------
    list of str
        Further files of the language.
    """
    if profile != _ONNX_ASR:
        return []
    config = {"model_type": "wav2vec2-ctc", "subsampling_factor": hop}
    name = Path(graph).with_name("config.json").as_posix()
    write_json(folder / name, config)
    return [name]


def silent_ids(entry: BundleLanguage, tokens: Sequence[str]) -> list[int]:
    """Return the tokens that are no text, besides the blank.

    Arguments
    ---------
    entry : BundleLanguage
        The language.
    tokens : sequence of str
        Its symbols.

    Returns
    -------
    list of int
        The unknown token; and the space of a language without spaces.

    Example
    -------
    >>> entry = BundleLanguage("m", "t", [], unk=1, spaceless=True)
    >>> silent_ids(entry, ["<blk>", "<unk>", "a", "▁"])
    [1, 3]
    """
    silent = [] if entry.unk is None else [entry.unk]
    if entry.spaceless and WORD_START in tokens:
        silent.append(tokens.index(WORD_START))
    return silent


def client_logits(
    profile: str,
    logits: np.ndarray,
    entry: BundleLanguage,
    tokens: Sequence[str],
) -> np.ndarray:
    """Return what a client's graph should compute, from the model's logits.

    Arguments
    ---------
    profile : str
        Of `PROFILES`.
    logits : np.ndarray
        (..., tokens), as torch computes them.
    entry : BundleLanguage
        The language.
    tokens : sequence of str
        Its symbols.

    Returns
    -------
    np.ndarray
        As `logits`.
    """
    if profile == PROFILES[0]:
        return logits
    wanted = logits.copy()
    if profile == _ONNX_ASR:
        wanted -= wanted.max(-1, keepdims=True)
        wanted -= np.log(np.exp(wanted).sum(-1, keepdims=True))
    if silent := silent_ids(entry, tokens):
        best = wanted[..., [entry.blank, *silent]].max(-1)
        wanted[..., entry.blank] = best
        wanted[..., silent] = NEVER
    return wanted


def _silence(graph: Any, blank: int, silent: Sequence[int]) -> None:
    """Let the blank win where one of the silent tokens would have won."""
    ir = onnx_ir()
    output = graph.outputs[0]
    vocabulary = output.shape[-1]
    ids = np.arange(vocabulary)
    build = _Builder(graph, "s3router.silence")
    columns = build.constant(np.array([blank, *silent]))
    chosen = build.node("Gather", output, columns, axis=-1)
    axis = build.constant(np.array([-1]))
    best = build.node("ReduceMax", chosen, axis, keepdims=1)
    is_blank = build.constant(ids == blank)
    spoken = build.node("Where", is_blank, best, output)
    is_silent = build.constant(np.isin(ids, silent))
    never = build.constant(np.float32(NEVER))
    final = build.node("Where", is_silent, never, spoken)
    final.shape, final.dtype = ir.Shape(output.shape), output.dtype
    name, output.name = output.name, "s3router.all_tokens"
    final.name = name
    graph.outputs[0] = final
    graph.extend(build.nodes)


def _undo_floor(graph: Any) -> None:
    """Give audio the scale that the model was trained with.

    The client divides by sqrt(v + f), we by sqrt(v + g). Of what it hands
    over the mean square is u = v / (v + f), so that the one becomes the other
    when divided by sqrt(u + (g / f) (1 - u)). It matters in quiet recordings.
    """
    audio = graph.inputs[0]
    users = tuple(audio.uses())
    ratio = VARIANCE_FLOOR / SHERPA_FLOOR
    build = _Builder(graph, "s3router.floor")
    axis = build.constant(np.array([1]))
    square = build.node("Mul", audio, audio)
    mean = build.node("ReduceMean", square, axis, keepdims=1)
    slope = build.constant(np.float32(1 - ratio))
    scaled = build.node("Mul", mean, slope)
    shift = build.constant(np.float32(ratio))
    scale = build.node("Sqrt", build.node("Add", scaled, shift))
    restored = build.node("Div", audio, scale)
    restored.shape, restored.dtype = audio.shape, audio.dtype
    for user, position in users:
        user.replace_input_with(position, restored)
    graph.insert_before(graph[0], build.nodes)


class _Builder:
    """Collects nodes and constants under one prefix."""

    def __init__(self, graph: Any, prefix: str) -> None:
        self._ir, self._graph, self._prefix = onnx_ir(), graph, prefix
        self.nodes: list[Any] = []
        self._constants = 0

    def constant(self, array: np.ndarray) -> Any:
        name = f"{self._prefix}.constant_{self._constants}"
        self._constants += 1
        return constant(self._graph, name, np.asarray(array))

    def node(self, kind: str, *inputs: Any, **attributes: object) -> Any:
        name = f"{self._prefix}.{len(self.nodes)}"
        made = self._ir.node(kind, inputs, attributes, name=name)
        made.outputs[0].name = name
        self.nodes.append(made)
        return made.outputs[0]
