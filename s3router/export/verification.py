"""Verifies a bundle: each language, and then what all of them share."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import MismatchError
from s3router.export.fold import FoldedModel
from s3router.export.parity import TOLERANCE, ParityReport, check_language
from s3router.export.precision import fold_and_round
from s3router.export.probes import probe_signal
from s3router.export.runner import check_runner, runs_on_runner
from s3router.export.subnetworks import load_subnetworks
from s3router.formats.bundle import Bundle
from s3router.formats.files import sha256_file
from s3router.formats.subnetwork import CONFIG, Subnetwork
from s3router.runtime.recognizer import Recognizer

#: Samples that mode "switch" is compared on.
_SECOND = 16000

Path_ = str | os.PathLike


class Verification:
    """Verifies the languages of a bundle, one after the other.

    Arguments
    ---------
    folder : str or path
        The bundle.
    wavs : sequence of np.ndarray
        (samples,) float32 clips of real audio, besides those made here.
    tolerance : float
        Largest difference of logits from torch that passes.
    providers : str, optional
        What onnxruntime should run on.
    """

    def __init__(
        self,
        folder: Path_,
        wavs: Sequence[np.ndarray] = (),
        tolerance: float = TOLERANCE,
        providers: str | None = "cpu",
    ) -> None:
        self._folder, self._wavs = folder, wavs
        self._tolerance, self._providers = tolerance, providers
        self._clip = probe_signal(_SECOND, seed=0)
        self._heard: dict[str, np.ndarray] = {}
        self._allowed: dict[str, float] = {}

    def language(
        self, code: str, model: FoldedModel, subnetwork: Subnetwork
    ) -> tuple[Recognizer, ParityReport]:
        """Verify a language that lies in the folder.

        Arguments
        ---------
        code : str
            Of the language.
        model : FoldedModel
            The truth, with the weights that the bundle has.
        subnetwork : Subnetwork
            The subnetwork.

        Returns
        -------
        tuple of Recognizer and ParityReport
            That it was verified with, and the numbers.

        Raises
        ------
        VerificationError
            If anything differs.
        """
        recognizer = Recognizer(self._folder, code, self._providers)
        parity = check_language(
            model, subnetwork, recognizer, self._wavs, self._tolerance
        )
        if runs_on_runner(recognizer.bundle.languages[code]):
            self._heard[code] = recognizer.logits(self._clip)
            # Each mode may be as far from torch as mode fold was let be.
            self._allowed[code] = 2 * max(self._tolerance, parity.max_error)
        return recognizer, parity

    def together(self) -> None:
        """Verify mode "switch", with the languages that were verified.

        Raises
        ------
        VerificationError
            If a language differs from what it is in mode "fold".
        """
        check_runner(
            self._folder,
            self._heard,
            self._clip,
            self._allowed,
            self._providers,
        )


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
    loaded = load_subnetworks(subnetworks)
    given = {code: path for code, (path, _) in loaded.items()}
    verification = Verification(folder, wavs, tolerance, providers)
    report = {}
    for code, entry in bundle.languages.items():
        path = Path(given.get(code) or entry.details["subnetwork"])
        subnetwork = Subnetwork.load(path)
        if sha256_file(path / CONFIG) != entry.details["config_sha256"]:
            raise MismatchError(
                f"{path} is not the subnetwork that {code} in {folder} was "
                f"made from: its {CONFIG} differs; name the right one with "
                f"--subnetworks"
            )
        _, rounded = fold_and_round(bundle, source, subnetwork)
        _, parity = verification.language(code, rounded, subnetwork)
        report[code] = parity.as_dict()
    if bundle.runner:
        verification.together()
    return report
