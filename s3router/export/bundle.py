"""Makes a bundle of subnetworks: fold, export, verify, write whole.

A bundle that does not verify is not written.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from s3router.errors import SettingError, one_of
from s3router.export.accuracy import measure_change
from s3router.export.encodings import AUTO, ENCODINGS, describe_encoding
from s3router.export.language import write_language
from s3router.export.layouts import WHOLE, choose_layout, open_layout
from s3router.export.parity import TOLERANCE
from s3router.export.precision import fold_and_round
from s3router.export.probes import frame_hop
from s3router.export.profiles import audio_wanted, check_profile
from s3router.export.subnetworks import load_subnetworks
from s3router.export.transcripts import read_transcripts
from s3router.export.verification import Verification
from s3router.export.versions import tool_versions
from s3router.formats.bundle import BACKBONE, LAYOUTS, PRECISIONS, Bundle
from s3router.formats.files import atomic_folder
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import SSLEncoder

Path_ = str | os.PathLike


def make_bundle(
    subnetworks: Sequence[Path_],
    output: Path_,
    encoder: str | None = None,
    layout: str | None = None,
    precision: str = "fp32",
    wavs: Sequence[np.ndarray] = (),
    tolerance: float = TOLERANCE,
    encoding: str = AUTO,
    profile: str = "s3router",
    transcripts: Sequence[Path_] = (),
    log: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Export subnetworks of one encoder into a bundle folder.

    Arguments
    ---------
    subnetworks : sequence of str or path
        Subnetwork folders, one for each language.
    output : str or path
        The bundle folder to write. One that is there is replaced, but only
        when the new one is complete.
    encoder : str, optional
        Where the encoder is; as the subnetworks name it, if not given.
    layout : str, optional
        "shared": one file of weights, and masks and heads of the languages.
        "standalone": one graph with all its weights for each language. None:
        shared where no subnetwork has weights of its own.
    precision : str
        "fp32", "fp16" or "int8", see `s3router.export.precision`.
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real audio, to verify with as well.
    tolerance : float
        Largest difference of logits from torch that passes.
    encoding : str
        How layout "standalone" stores weights with many zeros: "auto" (the
        smallest for each; "dense" for pattern n:m, which TensorRT looks for
        in plain weights), "dense", "gaps", "bits" or "sparse".
    profile : str
        Whose contract the graphs keep: "s3router", "sherpa-onnx" or
        "onnx-asr", see `s3router.export.profiles`.
    transcripts : sequence of str or path
        CSV files of clips and what is said in them, see
        `s3router.export.transcripts`; error rates are reported with them.
    log : callable, optional
        Is told of progress and warnings, one line at a time.

    Returns
    -------
    dict
        "layout", "precision", "bytes" and "seconds" of all, and "languages":
        code to its own "bytes", "seconds", "sparsity", "parity", "change" and,
        of layout "standalone", "encoding".

    Raises
    ------
    SettingError
        If nothing is to be exported, two subnetworks have one language, the
        layout, precision, encoding or profile is unknown, or they do not fit
        the subnetworks.
    MismatchError
        If the subnetworks were made for different encoders, or the encoder is
        not theirs.
    VerificationError
        If onnxruntime does not compute what torch computes.
    """
    start = time.perf_counter()
    log = log or (lambda line: None)
    loaded = load_subnetworks(subnetworks)
    if not loaded:
        raise SettingError("there is no subnetwork to export")
    first = next(iter(loaded.values()))[1]
    source = encoder or first.config["encoder"]
    named = {str(path): one for path, one in loaded.values()}
    layout = _settle(layout, precision, encoding, profile, named)
    rate = first.config.get("sample_rate", 16000)
    spoken = read_transcripts(transcripts, loaded, rate)
    with atomic_folder(output) as folder:
        bundle, report = Bundle({}, {}, layout=layout, precision=precision), {}
        bundle.created_by, bundle.profile = tool_versions(), profile
        writer = open_layout(layout, folder, source, first, precision, encoding)
        verification = Verification(folder, wavs, tolerance)
        for code, (path, subnetwork) in loaded.items():
            log(f"{code}: exporting {path}")
            began = time.perf_counter()
            model, rounded = fold_and_round(bundle, source, subnetwork)
            _describe_encoder(bundle, model.encoder, source, subnetwork)
            bundle.languages[code] = write_language(
                writer, folder, code, path, subnetwork, model, profile
            )
            bundle.save(folder, measured=bundle.files)
            recognizer, parity = verification.language(
                code, rounded, subnetwork
            )
            bundle.parity[code] = parity.as_dict()
            change = measure_change(model, recognizer, wavs, spoken[code])
            bundle.change[code] = change.as_dict() if change else {}
            report[code] = _report(bundle, code, time.perf_counter() - began)
            for line in _lines(code, report[code]):
                log(line)
        # A client has no mode, and a classifier no logits of frames.
        bundle.runner = writer.finish() if profile == "s3router" else None
        bundle.save(folder, measured=bundle.files)
        if bundle.runner:
            verification.together()
    return {
        "layout": layout,
        "precision": precision,
        "bytes": sum(f["bytes"] for f in bundle.files.values()),
        "seconds": time.perf_counter() - start,
        "languages": report,
    }


def _settle(
    layout: str | None,
    precision: str,
    encoding: str,
    profile: str,
    named: dict[str, Subnetwork],
) -> str:
    """Return the layout; raise SettingError if settings do not fit."""
    one_of(precision, PRECISIONS, "precision")
    one_of(encoding, ENCODINGS, "encoding")
    if layout is not None:
        one_of(layout, LAYOUTS, "layout")
    layout = check_profile(profile, layout, precision, named)
    layout = choose_layout(layout, named)
    if layout == "shared" and encoding != AUTO:
        raise SettingError(
            f"encoding {encoding}: weights that languages share lie whole in "
            "their file; use layout standalone, or leave the encoding out"
        )
    return layout


def _report(bundle: Bundle, code: str, seconds: float) -> dict[str, Any]:
    """Return what is told of a language; shared files are nobody's own."""
    entry = bundle.languages[code]
    own = [name for name in entry.files if name != BACKBONE]
    return {
        "bytes": sum(bundle.files[name]["bytes"] for name in own),
        "seconds": seconds,
        "sparsity": entry.sparsity,
        "parity": bundle.parity[code],
        "change": bundle.change[code],
        **{k: v for k, v in entry.details.items() if k in ("encoding", WHOLE)},
    }


def _lines(code: str, report: dict[str, Any]) -> list[str]:
    """Return what the report of a language says to people."""
    parity = report["parity"]
    lines = [
        f"{code}: {report['bytes'] / 1e6:.1f} MB, {parity['zeros']} zeros, "
        f"logits within {parity['max_error']:.1e} of torch"
    ]
    if "encoding" in report:
        lines.append(f"{code}: {describe_encoding(report['encoding'])}")
    if WHOLE in report:
        why = report[WHOLE]
        lines.append(f"{code}: of whole shape, with mask bits: {why}")
    if warning := report["change"].get("warning"):
        lines.append(f"warning: {warning}")
    return lines


def _describe_encoder(
    bundle: Bundle, encoder: SSLEncoder, source: str, subnetwork: Subnetwork
) -> None:
    """Write what the runtime must know of the encoder into the manifest."""
    bundle.encoder = {
        "name": str(source),
        "family": encoder.family,
        # Not the folded encoder's own: that would be one of other weights.
        "fingerprint": subnetwork.config["fingerprint"],
    }
    bundle.sample_rate = encoder.sample_rate
    bundle.normalize, bundle.variance_floor = audio_wanted(
        bundle.profile, bool(encoder.normalize_input)
    )
    bundle.min_samples = int(encoder.min_samples)
    bundle.hop = frame_hop(encoder)
