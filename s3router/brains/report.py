"""What a recipe leaves behind: the subnetwork, the rates, the transcripts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from s3router.brains.ctc import CTCBrain
from s3router.data.manifest import read_manifest
from s3router.data.tokens import Tokens
from s3router.errors import FormatError, NotFoundError
from s3router.evaluation.error_rates import ErrorRate, error_rate
from s3router.evaluation.results import (
    plain_settings,
    read_result,
    write_result,
)
from s3router.evaluation.table_format import format_table
from s3router.formats.files import write_json
from s3router.methods.subnetwork import collect_subnetwork


def save_subnetwork(
    brain: CTCBrain,
    tokens: Tokens,
    identity: dict,
    hparams: Mapping,
    front_end: Mapping[str, np.ndarray],
) -> None:
    """Save the subnetwork of the brain's present state, checked on disk.

    Arguments
    ---------
    brain : CTCBrain
        With the best checkpoint loaded.
    tokens : Tokens
        What the head's outputs stand for.
    identity : dict
        Language, task, encoder, fingerprint and alike.
    hparams : mapping
        With `subnetwork_folder`.
    front_end : mapping of str to numpy.ndarray
        Masks of the front end, which no method trains.
    """
    subnetwork = collect_subnetwork(
        brain.method,
        brain.head.to_numpy(),
        tokens.symbols,
        identity,
        tokens.tokenizer_model,
    )
    subnetwork.masks.update(front_end)
    subnetwork.save(hparams["subnetwork_folder"])


def report_run(
    brain: CTCBrain,
    hparams: Mapping,
    csvs: Mapping[str, Path],
    trainable: int,
    seconds: float,
) -> None:
    """Write result and test transcripts, and print the rates.

    Arguments
    ---------
    brain : CTCBrain
        Right after `evaluate` on the test set, if `evaluate_test`.
    hparams : mapping
        The recipe's settings.
    csvs : mapping
        Split name to manifest.
    trainable : int
        Number of trained values, head included.
    seconds : float
        What all of it took, preparing and testing too. That of a result
        which is there already, of a search, is added.
    """
    best = brain.checkpointer.find_checkpoint(min_key=brain.selection_key)
    metrics: dict[str, object] = {
        "dev_cer": best.meta["CER"] / 100,
        "dev_wer": best.meta["WER"] / 100,
    }
    if hparams["evaluate_test"]:
        rates = _test_rates(brain, hparams, csvs["test"])
        metrics.update({f"test_{name}": r for name, r in rates.items()})
    labelled = sum(float(r["duration"]) for r in read_manifest(csvs["train"]))
    write_result(
        hparams["result_file"],
        config=plain_settings(hparams),
        seed=hparams["seed"],
        metrics=metrics,
        extra={
            "language": hparams["language"],
            "method": hparams["variant"] or brain.method.name,
            "sparsity": _measured_sparsity(brain),
            "labelled_minutes": round(labelled / 60, 2),
            "precision": brain.precision,
            "best_epoch": best.meta["epoch"],
            "trainable_parameters": trainable,
            "subnetwork_bytes": _folder_bytes(hparams["subnetwork_folder"]),
            "run_seconds": round(_earlier(hparams["result_file"]) + seconds, 1),
            **brain.spent,
        },
    )
    if hparams["evaluate_test"]:
        print(_table(hparams, rates))
    else:
        print(
            f"dev CER {100 * metrics['dev_cer']:.1f} %, "
            f"WER {100 * metrics['dev_wer']:.1f} %; test was not looked at"
        )
    print(f"subnetwork: {hparams['subnetwork_folder']}")
    print(f"result:     {hparams['result_file']}")


def _earlier(result_file: str) -> float:
    """Return what an earlier result of the same run says that it took."""
    try:
        return read_result(result_file)["extra"].get("run_seconds", 0.0)
    except (NotFoundError, FormatError):
        return 0.0


def _test_rates(
    brain: CTCBrain, hparams: Mapping, csv: Path
) -> dict[str, ErrorRate]:
    """Return the rates on the test set, and write its transcripts."""
    ids, references, hypotheses = _test_texts(brain)
    wavs = {row["ID"]: row["wav"] for row in read_manifest(csv)}
    write_json(
        Path(hparams["output_folder"]) / "transcripts.json",
        [
            {"id": i, "wav": wavs[i], "reference": r, "hypothesis": h}
            for i, r, h in zip(ids, references, hypotheses, strict=True)
        ],
    )
    return {
        name: error_rate(
            references,
            hypotheses,
            unit=unit,
            spaceless=brain.spaceless,
            seed=hparams["seed"],
        )
        for name, unit in (("cer", "char"), ("wer", "word"))
    }


def _test_texts(brain: CTCBrain) -> tuple[list[str], list[str], list[str]]:
    """Return IDs, references and hypotheses, in the order of the IDs."""
    rows = zip(
        brain.utterance_ids, brain.references, brain.hypotheses, strict=True
    )
    ids, references, hypotheses = zip(*sorted(rows), strict=True)
    return list(ids), list(references), list(hypotheses)


def _measured_sparsity(brain: CTCBrain) -> float:
    masks = brain.method.masks().values()
    total = sum(m.numel() for m in masks)
    return 1 - sum(int(m.sum()) for m in masks) / total if total else 0.0


def _table(hparams: Mapping, rates: Mapping[str, ErrorRate]) -> str:
    row = {**hparams, **rates}
    columns = {
        "language": "language",
        "method": "method",
        "cer": "CER % [95% CI]",
        "wer": "WER % [95% CI]",
    }
    return format_table([row], columns)


def _folder_bytes(folder: str | Path) -> int:
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
