"""Does the bundle do what the trained model does? Numbers, or an error.

Every check compares with something independent: the folded model in torch,
the padded batches of training, the mask itself. A bundle that fails is not
written; `export/check_parity.py` repeats the checks later.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from s3router.errors import VerificationError
from s3router.export.clients import check_client
from s3router.export.cuts import STRUCTURED, Cuts, find_cuts
from s3router.export.emulate import quantized_inputs
from s3router.export.fold import FoldedModel
from s3router.export.pooling import check_label
from s3router.export.precision import choose_types
from s3router.export.probes import probe_signal, stress_lengths
from s3router.export.profiles import client_logits
from s3router.export.weights import check_weights
from s3router.formats.bundle_language import BundleLanguage
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.audio import normalize
from s3router.runtime.decode import greedy_ctc, join_tokens
from s3router.runtime.recognizer import Recognizer

# fp32 sums in another order differ by about 1e-5 on logits of tens.
TOLERANCE = 1e-4
#: A network whose hidden states are large rounds more than that: so many times
#: torch's own distance from float64 is allowed too.
ROUNDINGS = 4.0
#: So many times what quantised activations move logits is allowed under int8.
NOISES = 2.0

# Clips in a padded batch.
_BATCH = 8


@dataclass(frozen=True)
class ParityReport:
    """What the verification of one language measured.

    Arguments
    ---------
    max_error : float
        Largest difference of a logit between torch and onnxruntime, clips
        alone and in batches without padding.
    max_error_padded : float
        The same against torch's padded batches, as in training.
    max_logit : float
        Largest absolute logit, for scale.
    noise : float
        Largest difference of a logit between torch with the inputs of linear
        layers quantised as onnxruntime does, and without; 0 unless the
        precision is int8.
    rounding : float or None
        Largest difference of torch's logits in float32 from those in float64,
        measured only where an error above reaches the tolerance.
    lengths : list of int
        Lengths of the clips, in samples.
    texts : int
        Clips whose text was compared, and was the same.
    tensors, zeros : int
        Masked weights in the graph, and the zeros in them.
    provider : str
        What onnxruntime ran on.
    client : str or None
        What else read the same text, see `check_client`.
    """

    max_error: float
    max_error_padded: float
    max_logit: float
    noise: float
    rounding: float | None
    lengths: list[int]
    texts: int
    tensors: int
    zeros: int
    provider: str
    client: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def check_language(
    model: FoldedModel,
    subnetwork: Subnetwork,
    recognizer: Recognizer,
    wavs: Sequence[np.ndarray] = (),
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Verify the language that a recogniser has open.

    Under precision int8, torch quantises the inputs of linear layers too. Sums
    in another order let some of them fall to the next step, and layer by layer
    more of them, until, at worst, both sides have rounded independently of each
    other: then they are sqrt(2) times as far apart as rounding moved torch's
    own logits (`ParityReport.noise`). Twice that (`NOISES`) is allowed; weights
    and scales themselves are compared bit for bit.

    Arguments
    ---------
    model : FoldedModel
        The truth, rounded as the bundle is (`round_model`).
    subnetwork : Subnetwork
        What was folded into it: masks and tokens.
    recognizer : Recognizer
        On the bundle, switched to the language.
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real audio at the bundle's rate, to check
        besides the built-in ones.
    tolerance : float
        Largest difference of logits that passes, unless torch's own rounding
        is more than a part of it (`ROUNDINGS`).

    Returns
    -------
    ParityReport
        The numbers.

    Raises
    ------
    VerificationError
        If anything differs; the text has the numbers.
    """
    name = f"language {recognizer.language}"
    if recognizer.symbols != subnetwork.tokens:
        raise VerificationError(f"{name}: its tokens are not the subnetwork's")
    entry = recognizer.bundle.languages[recognizer.language]
    types = choose_types(model.encoder.model, recognizer.bundle.precision)
    cuts = Cuts()
    if entry.details.get("form") == STRUCTURED:
        cuts = find_cuts(model.encoder.model, subnetwork.masks)
    path = recognizer.bundle.path(entry.model)
    tensors, zeros = check_weights(path, model, subnetwork.masks, types, cuts)
    lengths = stress_lengths(model.encoder)
    clips = [probe_signal(n, seed) for seed, n in enumerate(lengths)]
    clips += [np.asarray(wav, dtype=np.float32) for wav in wavs]
    plain = [torch_logits(model, clip) for clip in clips]
    got = [recognizer.logits(clip) for clip in clips]
    batch = [probe_signal(lengths[-2], 90 + i) for i in range(3)]
    with quantized_inputs(model, types):
        expected = [torch_logits(model, clip) for clip in clips]
        error = _batch_error(model, recognizer, batch)
    wanted = as_the_graph(recognizer, expected)
    error = max(error, *map(_difference, wanted, got))
    noise = max(map(_difference, as_the_graph(recognizer, plain), wanted))
    padded = _padded_error(model, recognizer, clips, got)
    largest = float(max(np.abs(logits).max() for logits in expected))
    rounding, beyond = None, max(error, padded) - NOISES * noise
    if beyond >= tolerance:
        rounding = _rounding(model, clips, plain)
        tolerance = max(tolerance, ROUNDINGS * rounding)
    if beyond >= tolerance:
        bound = f"{tolerance:.2e} is allowed (torch's own rounding: "
        bound += f"{rounding:.1e}; quantised activations: {noise:.1e})"
        raise VerificationError(
            f"{name}: onnxruntime's logits differ from torch's by up to "
            f"{error:.2e} alone and {padded:.2e} from padded batches; at most "
            f"{bound}"
        )
    # Where activations fell otherwise, equal texts would be luck: there, only
    # what becomes of the logits is compared.
    for clip, logits in zip(clips, got if noise else expected, strict=True):
        _check_text(subnetwork.tokens, recognizer, clip, logits)
    return ParityReport(
        max_error=error,
        max_error_padded=padded,
        max_logit=largest,
        noise=noise,
        rounding=rounding,
        lengths=[len(clip) for clip in clips],
        texts=len(clips),
        tensors=tensors,
        zeros=zeros,
        provider=recognizer.provider,
        client=check_client(recognizer, clips, tolerance + 2 * noise),
    )


@torch.no_grad()
def torch_logits(
    model: FoldedModel, clip: np.ndarray, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Return torch's logits of one clip.

    Arguments
    ---------
    model : FoldedModel
        Of the given type.
    clip : np.ndarray
        (samples,) float32, as recorded.
    dtype : torch.dtype
        To compute in.

    Returns
    -------
    np.ndarray
        (frames, tokens).
    """
    if model.encoder.normalize_input:
        clip = normalize(clip)
    return model(torch.from_numpy(clip[None]).to(dtype))[0].numpy()


def read_text(
    logits: np.ndarray, tokens: list[str], entry: BundleLanguage
) -> str:
    """Return the text that logits say.

    Arguments
    ---------
    logits : np.ndarray
        (frames, tokens).
    tokens : list of str
        Symbol of each.
    entry : BundleLanguage
        Says how the language is written.

    Returns
    -------
    str
        As `Recognizer.transcribe` gives it.
    """
    ids = greedy_ctc(logits, entry.blank)
    text = join_tokens(ids, tokens, (entry.blank, entry.unk))
    return text.replace(" ", "") if entry.spaceless else text


def _rounding(
    model: FoldedModel, clips: Sequence[np.ndarray], got: list[np.ndarray]
) -> float:
    """Return how far torch's float32 logits are from float64's."""
    exact = copy.deepcopy(model).double()
    return max(
        _difference(torch_logits(exact, clip, torch.float64), logits)
        for clip, logits in zip(clips, got, strict=True)
    )


@torch.no_grad()
def _batch_error(
    model: FoldedModel, recognizer: Recognizer, batch: list[np.ndarray]
) -> float:
    """Return the largest difference on clips of one length, run together."""
    rows = np.stack(batch)
    if model.encoder.normalize_input:
        rows = np.stack([normalize(clip) for clip in batch])
    logits = model(torch.from_numpy(rows)).numpy()
    given = np.stack([recognizer.prepare(clip) for clip in batch])
    wanted = np.stack(as_the_graph(recognizer, list(logits)))
    return _difference(wanted, recognizer.session.run(given))


def as_the_graph(
    recognizer: Recognizer, logits: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return what the graph should give for the model's logits.

    Arguments
    ---------
    recognizer : Recognizer
        On the bundle, switched to the language.
    logits : sequence of np.ndarray
        (frames, tokens) each, or (classes,).

    Returns
    -------
    list of np.ndarray
        The same, but for a client's graph.
    """
    bundle = recognizer.bundle
    entry = bundle.languages[recognizer.language]
    return [
        client_logits(bundle.profile, one, entry, recognizer.symbols)
        for one in logits
    ]


def _padded_error(
    model: FoldedModel,
    recognizer: Recognizer,
    clips: list[np.ndarray],
    got: list[np.ndarray],
) -> float:
    """Return the largest difference from torch's padded batches.

    Clips of like lengths go together, or much of the time would be spent on
    padding; within a batch the lengths still differ.
    """
    order, error = sorted(range(len(clips)), key=lambda i: len(clips[i])), 0.0
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        together = model.padded([torch.from_numpy(clips[i]) for i in part])
        wanted = as_the_graph(recognizer, [row.numpy() for row in together])
        for i, logits in zip(part, wanted, strict=True):
            error = max(error, _difference(logits, got[i]))
    return error


def _difference(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the largest difference; infinity if shapes differ, or for NaN."""
    if expected.shape != got.shape:
        return float("inf")
    largest = float(np.abs(expected - got).max())
    # Python's max drops a NaN that comes second.
    return largest if np.isfinite(largest) else float("inf")


def _check_text(
    tokens: list[str],
    recognizer: Recognizer,
    clip: np.ndarray,
    logits: np.ndarray,
) -> None:
    """Raise VerificationError if torch and the recogniser read otherwise."""
    entry = recognizer.bundle.languages[recognizer.language]
    if entry.task == "classification":
        check_label(tokens, recognizer, clip, logits)
        return
    text = read_text(logits, tokens, entry)
    got = recognizer.transcribe(clip).text
    if got != text:
        raise VerificationError(
            f"language {recognizer.language}: torch reads {text[:60]!r}, "
            f"onnxruntime {got[:60]!r}, in a clip of {len(clip)} samples"
        )
