"""What fewer bits cost: logits, texts and error rates against fp32 in torch.

Parity (`s3router.export.parity`) asks whether a bundle computes what it should;
this asks how good that is. It fails nothing; it reports, and warns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from s3router.evaluation.error_rates import error_rate
from s3router.export.fold import FoldedModel
from s3router.export.padded import NEVER
from s3router.export.parity import as_the_graph, read_text, torch_logits
from s3router.export.probes import probe_signal, stress_lengths
from s3router.export.transcripts import Spoken
from s3router.formats.bundle_language import BundleLanguage
from s3router.runtime.recognizer import Recognizer

#: A character error rate that rises by more, as a share of itself, is warned
#: of.
RISE = 0.05


@dataclass(frozen=True)
class Change:
    """How a language of a bundle differs from the model in fp32.

    Arguments
    ---------
    max_logit : float
        Largest difference of a logit.
    relative_logit : float
        Root mean square of all differences, by that of the logits.
    clips : int
        Clips of real speech; the logits are those of built-in signals too.
    text_distance : float or None
        Character error rate of the bundle's texts of them against those of
        fp32; None if there are no clips, or fp32 reads nothing in any.
    cer_fp32, cer : float or None
        Character error rates of fp32 and of the bundle where there were
        transcripts, fractions.
    rise : float or None
        By how much the second is above the first, as a share of the first;
        None without transcripts, or if the first is zero.
    transcripts : int
        Clips behind both.
    warning : str or None
        What a user should know.
    """

    max_logit: float
    relative_logit: float
    clips: int
    text_distance: float | None
    cer_fp32: float | None
    cer: float | None
    rise: float | None
    transcripts: int
    warning: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def measure_change(
    model: FoldedModel,
    recognizer: Recognizer,
    wavs: Sequence[np.ndarray] = (),
    spoken: Sequence[Spoken] = (),
) -> Change | None:
    """Compare a language of a bundle with the model in fp32.

    Arguments
    ---------
    model : FoldedModel
        From `fold`, not rounded.
    recognizer : Recognizer
        On the bundle, switched to the language.
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real speech.
    spoken : sequence of Spoken
        More of them, with transcripts.

    Returns
    -------
    Change, optional
        The numbers, and a warning where error rates rise by more than `RISE`;
        None if the bundle is in fp32 and there is nothing to read.
    """
    if recognizer.bundle.precision == "fp32" and not spoken:
        return None
    lengths = stress_lengths(model.encoder)
    probes = [probe_signal(n, seed) for seed, n in enumerate(lengths)]
    clips = [*(one.samples for one in spoken), *wavs]
    entry = recognizer.bundle.languages[recognizer.language]
    largest, squares, whole, texts = 0.0, 0.0, 0.0, []
    for clip in [*clips, *probes]:
        (true,) = as_the_graph(recognizer, [torch_logits(model, clip)])
        got = recognizer.logits(clip)
        # What a client never hears has no size.
        heard = true > NEVER
        difference = (got - true)[heard]
        largest = max(largest, float(np.abs(difference).max()))
        squares += float(np.square(difference, dtype=np.float64).sum())
        whole += float(np.square(true[heard], dtype=np.float64).sum())
        pair = (_read(x, recognizer.symbols, entry) for x in (true, got))
        texts.append(tuple(pair))
    said, read = zip(*texts, strict=True)
    said, read = said[: len(clips)], read[: len(clips)]
    return Change(
        max_logit=largest,
        relative_logit=float(np.sqrt(squares / whole)),
        clips=len(clips),
        text_distance=_rate(said, read, entry) if any(said) else None,
        transcripts=len(spoken),
        **_compare(recognizer.language, entry, spoken, said, read),
    )


def _read(logits: np.ndarray, symbols: list[str], entry: BundleLanguage) -> str:
    """Return what is read; nothing of a task that classifies."""
    return read_text(logits, symbols, entry) if entry.task == "ctc" else ""


def tell_change(change: Mapping[str, Any]) -> str:
    """Return one line for people.

    Arguments
    ---------
    change : mapping
        Of `Change.as_dict`.

    Returns
    -------
    str
        Logits, and error rates or texts where they were compared.
    """
    line = (
        f"logits within {change['max_logit']:.1e} of fp32, "
        f"{change['relative_logit']:.2%} in the mean"
    )
    if change["cer"] is not None:
        line += f"; CER {change['cer']:.2%}, fp32 {change['cer_fp32']:.2%}"
    if change["rise"] is not None:
        line += f", {change['rise']:+.1%}"
    if change["text_distance"] is not None:
        line += (
            f"; {change['text_distance']:.2%} of the characters that fp32 "
            f"reads differ"
        )
    return line


def _compare(
    language: str,
    entry: BundleLanguage,
    spoken: Sequence[Spoken],
    said: Sequence[str],
    read: Sequence[str],
) -> dict[str, Any]:
    """Return error rates of fp32 and bundle, and what to say of them."""
    truth, count = [one.text for one in spoken], len(spoken)
    if not any(truth):
        return dict.fromkeys(("cer_fp32", "cer", "rise", "warning"))
    before = _rate(truth, said[:count], entry)
    after = _rate(truth, read[:count], entry)
    warning = None
    if after > before * (1 + RISE):
        warning = (
            f"{language}: with fewer bits the character error rate rises from "
            f"{before:.2%} to {after:.2%}, by more than {RISE:.0%} of itself; "
            f"use another precision"
        )
    return {
        "cer_fp32": before,
        "cer": after,
        "rise": (after - before) / before if before else None,
        "warning": warning,
    }


def _rate(
    said: Sequence[str], read: Sequence[str], entry: BundleLanguage
) -> float:
    """Return a character error rate."""
    spaceless = entry.spaceless
    return error_rate(said, read, spaceless=spaceless, replicates=0).rate
