"""Exports the quickstart's subnetworks and runs them in onnxruntime."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from s3router.data.languages import is_spaceless
from s3router.evaluation.error_rates import error_rate
from s3router.evaluation.results import read_result
from s3router.export.bundle import make_bundle
from s3router.formats.bundle import MANIFEST, Bundle
from s3router.formats.files import read_json
from s3router.quickstart.runs import Run
from s3router.runtime.audio import read_audio
from s3router.runtime.recognizer import Recognizer

#: Real clips among those on which the export is compared with PyTorch.
CLIPS_TO_VERIFY = 5


def export_runs(runs: Sequence[Run], root: Path, bundle: Path) -> Path:
    """Export finished runs into one bundle, unless it is there already.

    Arguments
    ---------
    runs : sequence of Run
        Finished runs, one for each language.
    root : pathlib.Path
        The quickstart's folder.
    bundle : pathlib.Path
        The bundle folder to make.

    Returns
    -------
    pathlib.Path
        `bundle`; its logits were compared with PyTorch's before it was
        written, on test clips too.
    """
    if (bundle / MANIFEST).is_file():
        return bundle
    clips = [
        read_audio(entry["wav"], 16000)
        for run in runs
        for entry in transcripts(run, root)[:CLIPS_TO_VERIFY]
    ]
    make_bundle(
        [run.folder(root) / "subnetwork" for run in runs],
        bundle,
        wavs=clips,
        log=tqdm.write,
    )
    return bundle


def measure(run: Run, root: Path, bundle: Path) -> dict:
    """Transcribe a run's test set with onnxruntime; compare with PyTorch.

    Arguments
    ---------
    run : Run
        A finished run.
    root : pathlib.Path
        The quickstart's folder.
    bundle : pathlib.Path
        A bundle that holds the run's language.

    Returns
    -------
    dict
        One row of the quickstart's table. Rates are of onnxruntime's texts;
        `agrees` is True if every text equals the one that PyTorch gave in
        training's own evaluation, where clips are batched.
    """
    recognizer = Recognizer(bundle, run.language, threads=1)
    references, texts, expected, seconds, duration = [], [], [], 0.0, 0.0
    for entry in tqdm(transcripts(run, root), desc=run.name, leave=False):
        transcript = recognizer.transcribe(entry["wav"])
        references.append(entry["reference"])
        expected.append(entry["hypothesis"])
        texts.append(transcript.text)
        seconds += transcript.seconds
        duration += transcript.duration
    result = read_result(run.folder(root) / "result.json")
    manifest = Bundle.load(bundle)
    spaceless = is_spaceless(run.language)
    rates = {
        name: error_rate(references, texts, unit, spaceless=spaceless)
        for name, unit in (("cer", "char"), ("wer", "word"))
    }
    different = sum(a != b for a, b in zip(texts, expected, strict=True))
    files = manifest.own_files(run.language)
    return {
        "language": run.language,
        "method": run.method,
        "sparsity": result["extra"]["sparsity"],
        **rates,
        "subnetwork_bytes": result["extra"]["subnetwork_bytes"],
        "onnx_bytes": sum(manifest.files[name]["bytes"] for name in files),
        "real_time_factor": seconds / duration,
        "agrees": different == 0,
        "different_texts": different,
        "utterances": len(texts),
        "max_logit_error": manifest.parity[run.language]["max_error"],
        "provider": recognizer.provider,
        "trainable_parameters": result["extra"]["trainable_parameters"],
        "labelled_minutes": result["extra"]["labelled_minutes"],
    }


def transcripts(run: Run, root: Path) -> list[dict]:
    """Return PyTorch's test transcripts of a finished run.

    Arguments
    ---------
    run : Run
        The run.
    root : pathlib.Path
        The quickstart's folder.

    Returns
    -------
    list of dict
        With id, wav, reference and hypothesis.
    """
    return read_json(run.folder(root) / "transcripts.json")
