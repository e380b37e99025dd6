"""Makes a bundle of subnetworks: fold, export, verify, write whole.

A bundle that does not verify is not written.
"""

import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from s3router import __version__
from s3router.errors import MismatchError, SettingError, one_of
from s3router.export.fold import FoldedModel, fold
from s3router.export.layouts import (
    Shared,
    Standalone,
    choose_layout,
    open_layout,
)
from s3router.export.parity import TOLERANCE, ParityReport, check_language
from s3router.export.probes import frame_hop, probe_signal
from s3router.export.runner import SECOND, allowed_errors, check_runner
from s3router.export.shared import BACKBONE
from s3router.formats.bundle import (
    PRECISIONS,
    Bundle,
    BundleLanguage,
)
from s3router.formats.files import atomic_folder, sha256_file
from s3router.formats.language_codes import is_language_code
from s3router.formats.subnetwork import CONFIG, Subnetwork
from s3router.formats.tokens_file import save_tokens
from s3router.models.encoder import SSLEncoder, load_encoder
from s3router.runtime.recognizer import Recognizer

BLANK, UNKNOWN = "<blk>", "<unk>"
_TOOLS = ("torch", "onnx", "onnxscript", "transformers", "numpy")

Path_ = str | os.PathLike


def make_bundle(
    subnetworks: Sequence[Path_],
    output: Path_,
    encoder: str | None = None,
    layout: str | None = None,
    precision: str = "fp32",
    wavs: Sequence[np.ndarray] = (),
    tolerance: float = TOLERANCE,
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
        "fp32".
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real audio, to verify with as well.
    tolerance : float
        Largest difference of logits from torch that passes.
    log : callable, optional
        Is told of progress, one line at a time.

    Returns
    -------
    dict
        "layout", "bytes" and "seconds" of all, and "languages": code to its
        own "bytes", "seconds", "sparsity" and "parity".

    Raises
    ------
    SettingError
        If nothing is to be exported, two subnetworks have one language, the
        layout or precision is unknown, or weights cannot be shared.
    MismatchError
        If the subnetworks were made for different encoders, or the encoder is
        not theirs.
    VerificationError
        If onnxruntime does not compute what torch computes.
    """
    start = time.perf_counter()
    one_of(precision, PRECISIONS, "precision")
    log = log or (lambda line: None)
    loaded = _load(subnetworks)
    if not loaded:
        raise SettingError("there is no subnetwork to export")
    first = next(iter(loaded.values()))[1]
    source = encoder or first.config["encoder"]
    layout = choose_layout(layout, {str(p): s for p, s in loaded.values()})
    with atomic_folder(output) as folder:
        bundle, report = Bundle({}, {}, layout=layout, precision=precision), {}
        bundle.created_by = _versions()
        writer = open_layout(layout, folder, source, first)
        clip, heard = probe_signal(SECOND, seed=0), {}
        for code, (path, subnetwork) in loaded.items():
            log(f"{code}: exporting {path}")
            began = time.perf_counter()
            model = fold(load_encoder(source), subnetwork)
            _describe_encoder(bundle, model.encoder, source, subnetwork)
            entry = _write_language(
                writer, folder, code, path, subnetwork, model
            )
            bundle.languages[code] = entry
            bundle.save(folder, measured=bundle.files)
            recognizer = Recognizer(folder, code, "cpu")
            parity = check_language(
                model, subnetwork, recognizer, wavs, tolerance
            )
            heard[code] = recognizer.logits(clip)
            bundle.parity[code] = parity.as_dict()
            seconds = time.perf_counter() - began
            report[code] = _report(bundle, entry, seconds, parity)
            log(
                f"{code}: {report[code]['bytes'] / 1e6:.1f} MB, "
                f"{parity.zeros} zeros, logits within "
                f"{parity.max_error:.1e} of torch"
            )
        bundle.runner = writer.finish()
        bundle.save(folder, measured=bundle.files)
        if bundle.runner:
            check_runner(
                folder, heard, clip, allowed_errors(bundle.parity, tolerance)
            )
    return {
        "layout": layout,
        "bytes": sum(f["bytes"] for f in bundle.files.values()),
        "seconds": time.perf_counter() - start,
        "languages": report,
    }


def check_bundle(
    folder: Path_,
    subnetworks: Sequence[Path_] = (),
    encoder: str | None = None,
    wavs: Sequence[np.ndarray] = (),
    providers: str | None = "cpu",
    tolerance: float = TOLERANCE,
) -> dict[str, dict[str, Any]]:
    """Verify a bundle again, against its subnetworks and torch.

    Arguments
    ---------
    folder : str or path
        The bundle.
    subnetworks : sequence of str or path
        Its subnetwork folders; where the manifest says, if not given.
    encoder : str, optional
        Where the encoder is; as the manifest says, if not given.
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real audio, to verify with as well.
    providers : str, optional
        What onnxruntime should run on.
    tolerance : float
        Largest difference of logits from torch that passes.

    Returns
    -------
    dict
        Language code to the numbers, as in `ParityReport`.

    Raises
    ------
    FormatError
        If a file is truncated or altered.
    MismatchError
        If a subnetwork is not the one that the bundle was made from.
    VerificationError
        If onnxruntime does not compute what torch computes.
    """
    bundle = Bundle.load(folder)
    bundle.verify()
    source = encoder or bundle.encoder["name"]
    given = {code: path for code, (path, _) in _load(subnetworks).items()}
    report, clip, heard = {}, probe_signal(SECOND, seed=0), {}
    for code, entry in bundle.languages.items():
        path = given.get(code) or entry.details["subnetwork"]
        subnetwork = Subnetwork.load(path)
        if sha256_file(Path(path) / CONFIG) != entry.details["config_sha256"]:
            raise MismatchError(
                f"{path} is not the subnetwork that {code} in {folder} was "
                f"made from: its {CONFIG} differs; name the right one with "
                f"--subnetworks"
            )
        model = fold(load_encoder(source), subnetwork)
        recognizer = Recognizer(folder, code, providers)
        parity = check_language(model, subnetwork, recognizer, wavs, tolerance)
        report[code] = parity.as_dict()
        heard[code] = recognizer.logits(clip)
    if bundle.runner:
        bundle.parity = report
        check_runner(
            folder, heard, clip, allowed_errors(bundle.parity, tolerance)
        )
    return report


def _load(paths: Sequence[Path_]) -> dict[str, tuple[Path, Subnetwork]]:
    """Return subnetworks by language; all must fit into one bundle."""
    loaded: dict[str, tuple[Path, Subnetwork]] = {}
    for path in map(Path, paths):
        subnetwork = Subnetwork.load(path)
        config = subnetwork.config
        code = config["language"]
        if not is_language_code(code):
            raise SettingError(
                f"{path}: its language {code!r} cannot name a folder in a "
                f"bundle; use letters, digits, '-' and '_', as in zh-CN"
            )
        one_of(config["task"], ["ctc"], f"task of {path}:")
        if code in loaded:
            raise SettingError(
                f"{loaded[code][0]} and {path} are both of language {code}; "
                f"a bundle has one of each"
            )
        loaded[code] = (path, subnetwork)
    for key in ("fingerprint", "sample_rate", "normalize"):
        values = {
            str(path): subnetwork.config.get(key)
            for path, subnetwork in loaded.values()
        }
        if len(set(values.values())) > 1:
            said = ", ".join(f"{v} in {p}" for p, v in values.items())
            raise MismatchError(
                f"these subnetworks cannot share a bundle, their {key} "
                f"differs: {said}"
            )
    return loaded


def _report(
    bundle: Bundle, entry: BundleLanguage, seconds: float, parity: ParityReport
) -> dict[str, Any]:
    """Return what is told of a language; shared files are nobody's own."""
    own = [name for name in entry.files if name != BACKBONE]
    return {
        "bytes": sum(bundle.files[name]["bytes"] for name in own),
        "seconds": seconds,
        "sparsity": entry.sparsity,
        "parity": parity.as_dict(),
    }


def _write_language(
    writer: Standalone | Shared,
    folder: Path,
    code: str,
    path: Path,
    subnetwork: Subnetwork,
    model: FoldedModel,
) -> BundleLanguage:
    """Write the files of one language."""
    config, tokens = subnetwork.config, subnetwork.tokens
    metadata = {
        "language": code,
        "s3router.version": __version__,
        "sample_rate": str(model.encoder.sample_rate),
        "normalize": str(int(model.encoder.normalize_input)),
        "method": str(config["method"]),
    }
    files, tokens_file = writer.write(code, model, subnetwork, metadata)
    save_tokens(folder / tokens_file, tokens)
    files.append(tokens_file)
    counts = subnetwork.sparsity_by_tensor().values()
    return BundleLanguage(
        model=files[0],
        tokens=tokens_file,
        files=files,
        blank=tokens.index(BLANK) if BLANK in tokens else 0,
        unk=tokens.index(UNKNOWN) if UNKNOWN in tokens else None,
        unit=config.get("unit", "word"),
        spaceless=bool(config.get("spaceless", False)),
        task=config["task"],
        method=config["method"],
        sparsity=subnetwork.sparsity(),
        zeros=sum(removed for removed, _ in counts),
        head=config.get("head", {}),
        details={
            "subnetwork": str(path),
            "config_sha256": sha256_file(path / CONFIG),
            **{
                key: config[key]
                for key in ("targets", "scope", "pattern", "versions")
                if key in config
            },
        },
    )


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
    bundle.normalize = bool(encoder.normalize_input)
    bundle.min_samples = int(encoder.min_samples)
    bundle.hop = frame_hop(encoder)


def _versions() -> dict[str, str]:
    """Return the versions of what makes a graph."""
    versions = {"s3router": __version__}
    for name in (*_TOOLS, "onnxruntime", "onnxruntime-gpu"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
