"""What a pre-training run leaves for those who look at it along the way.

Hours of audio seen, read from the learning curves, and the encoder as it was
after so many of them. Knows nothing of training.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from s3router.formats.files import atomic_folder, read_json, write_json
from s3router.models.encoder_folder import save_encoder

#: Beside the weights of a snapshot, and of an untrained encoder.
RECORD = "snapshot.json"
#: Beside the weights of a finished run.
CURVES = "curves.json"
#: What `atomic_file` and `atomic_folder` leave if they are killed.
_LEFT_OVER = re.compile(r"\.(tmp|old)-[0-9a-f]{12}-.+")


def stage_names(hparams: Mapping) -> list[str]:
    """Return the names of the stages behind the warm-up, in order.

    Arguments
    ---------
    hparams : mapping
        With `objective` and `iterations`.

    Returns
    -------
    list of str
        Of their folders and curves.

    Example
    -------
    >>> stage_names({"objective": "hubert", "iterations": [{}, {}]})
    ['iteration_1', 'iteration_2']
    """
    if hparams["objective"] == "wav2vec2":
        return ["contrastive"]
    count = len(hparams["iterations"])
    return [f"iteration_{number}" for number in range(1, count + 1)]


def hours_seen(last: str, hparams: Mapping) -> float:
    """Return the hours of audio in the curves so far.

    Arguments
    ---------
    last : str
        The last stage that counts.
    hparams : mapping
        With `output_folder` and what `stage_names` needs.

    Returns
    -------
    float
        Hours, repetitions counted, the warm-up left out; 0.0 before the first
        epoch's end.
    """
    names = stage_names(hparams)
    curves = Path(hparams["output_folder"], "curves")
    paths = [curves / f"{name}.json" for name in names[: names.index(last) + 1]]
    return sum(
        entry["train_hours"]
        for path in paths
        if path.is_file()
        for entry in read_json(path)["entries"]
    )


def save_snapshots(
    encoder: PreTrainedModel, hours: float, hparams: Mapping
) -> None:
    """Keep the encoder as it is after so many hours of audio.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        As it is now.
    hours : float
        Of audio seen.
    hparams : mapping
        `snapshot_hours`: each gets a folder when it is first passed.
    """
    for wanted in hparams["snapshot_hours"]:
        folder = Path(hparams["output_folder"], "snapshots", f"{wanted:g}h")
        if hours >= wanted and not folder.is_dir():
            with atomic_folder(folder) as temporary:
                save_encoder(encoder, temporary)
                write_record(temporary, hours)


def write_record(folder: str | Path, hours: float) -> None:
    """Note beside an encoder's weights how much audio it has heard.

    Arguments
    ---------
    folder : str or path
        Of the encoder.
    hours : float
        Of audio, repetitions counted; 0.0 for an untrained one.
    """
    record = {"format_version": 1, "hours_seen": hours}
    write_json(Path(folder) / RECORD, record)


def hours_heard(folder: str | Path) -> float | None:
    """Return how much audio an encoder has heard in pre-training.

    Arguments
    ---------
    folder : str or path
        Of an encoder: a snapshot, a finished run's, an untrained one, or any.

    Returns
    -------
    float or None
        Hours, repetitions counted, the warm-up left out; None where neither
        a snapshot's record nor the learning curves lie beside the weights.
    """
    if (record := Path(folder, RECORD)).is_file():
        return float(read_json(record)["hours_seen"])
    if not (curves := Path(folder, CURVES)).is_file():
        return None
    return sum(
        entry.get("train_hours", 0.0)
        for stage, curve in read_json(curves).items()
        if stage != "warmup"
        for entry in curve.get("entries", [])
    )


def snapshots(output_folder: str | Path) -> list[tuple[str, float]]:
    """Return name and hours of audio of each snapshot, by hours.

    Arguments
    ---------
    output_folder : str or path
        Of the run.

    Returns
    -------
    list of tuple
        Folder's name, and the hours in its record.
    """
    records = Path(output_folder, "snapshots").glob(f"*/{RECORD}")
    found = [
        (path.parent.name, float(read_json(path)["hours_seen"]))
        for path in records
    ]
    return sorted(found, key=lambda snapshot: snapshot[1])


def remove_leftovers(hparams: Mapping) -> None:
    """Delete half-written files that an earlier, killed run left behind.

    Arguments
    ---------
    hparams : mapping
        With the recipe's folders. Two runs at once in one folder are not
        meant to be.
    """
    output = Path(hparams["output_folder"])
    for folder in (
        Path(hparams["work_folder"]),
        Path(hparams["encoder_folder"]),
        output / "curves",
        output / "snapshots",
    ):
        for path in folder.glob(".*") if folder.is_dir() else ():
            if not _LEFT_OVER.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
