"""Gathers unlabelled speech for pre-training into one manifest.

Any folder of audio, or manifests under it, and synthetic speech on top. What
was taken from where, under which licence, and what was left out and why, is
written beside the manifest: the model card is made from it.
"""

import csv
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from s3router.data.audio import inspect_audio
from s3router.data.manifest import Utterance, write_manifest
from s3router.data.synthetic_pool import make_synthetic_pool
from s3router.errors import DataError, NotFoundError, SettingError
from s3router.formats.files import read_json, write_json

logger = logging.getLogger(__name__)

AUDIO = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def prepare_pool(
    data_folder: str | os.PathLike | None,
    save_folder: str | os.PathLike,
    sources: Sequence[Mapping[str, str]] = (),
    synthetic_hours: float = 0.0,
    synthetic_languages: Sequence[str] = (),
    min_seconds: float = 0.3,
    max_seconds: float = 3600.0,
    seed: int = 0,
) -> None:
    """Write `pool.csv` and `pool.json`; do nothing if they are there.

    Arguments
    ---------
    data_folder : str or path or None
        Where the audio lies. None: synthetic speech only.
    save_folder : str or path
        Gets the manifest, its record, and the synthetic clips.
    sources : sequence of mapping
        Each with `manifest`, a CSV under `data_folder` (columns `wav`,
        relative to the CSV, and as far as known `language`, and `speaker` or
        `spk_id`), and `licence`. None: every audio file under `data_folder`;
        the folder below `data_folder` is then taken for the language, the
        file's own folder for the speaker.
    synthetic_hours : float
        Synthetic speech to add, all languages together.
    synthetic_languages : sequence of str
        Its languages, see `s3router.data.espeak.VOICES`.
    min_seconds, max_seconds : float
        Clips outside are left out, and said so.
    seed : int
        Of the synthetic speech.

    Raises
    ------
    NotFoundError
        If the folder or a manifest is missing.
    DataError
        If a manifest lacks its columns, or nothing is left.
    SettingError
        If there is neither a folder nor synthetic speech to make.
    """
    save_folder = Path(save_folder)
    made_from = None if data_folder is None else str(data_folder)
    if _made_before(save_folder / "pool.json", made_from):
        return
    if data_folder is None and not synthetic_hours > 0:
        raise SettingError(
            "there is nothing to hear: give a data_folder, or synthetic_hours "
            "above 0"
        )
    rows: list[Utterance] = []
    records: list[dict] = []
    skipped: dict[str, list[str]] = {}
    for source, licence, found in _found(data_folder, sources):
        kept = list(_decoded(found, source, min_seconds, max_seconds, skipped))
        rows += kept
        records.append(_record(source, licence, kept))
    if synthetic_hours > 0:
        made = make_synthetic_pool(
            save_folder / "synthetic",
            synthetic_languages,
            synthetic_hours,
            seed,
        )
        rows += made
        records.append(
            _record("synthetic speech (eSpeak NG)", "made by us", made)
        )
    if not rows:
        raise DataError(
            f"no usable audio in {data_folder}: {_summary(skipped)}"
        )
    write_manifest(save_folder / "pool.csv", rows)
    write_json(
        save_folder / "pool.json",
        {
            "format_version": 1,
            "made_from": made_from,
            "sources": records,
            "skipped": skipped,
        },
    )
    if skipped:
        logger.warning("left out: %s", _summary(skipped))


def _made_before(path: Path, made_from: str | None) -> bool:
    if not path.is_file():
        return False
    earlier = read_json(path).get("made_from")
    if earlier not in (None, made_from):
        logger.warning(
            "the pool of an earlier run is used, made from %s; to gather %s, "
            "choose another --output_folder",
            earlier,
            made_from,
        )
    return True


def _record(source: str, licence: str, rows: Sequence[Utterance]) -> dict:
    return {
        "source": source,
        "licence": licence,
        "clips": len(rows),
        "hours": sum(row["duration"] for row in rows) / 3600,
        "languages": sorted({row["language"] for row in rows}),
        "speakers": len({row["spk_id"] for row in rows}),
    }


def _summary(skipped: Mapping[str, Sequence[str]]) -> str:
    if not skipped:
        return "no audio file found"
    return "; ".join(
        f"{reason}: {len(names)} (as {names[0]})"
        for reason, names in sorted(skipped.items())
    )


def _found(
    data_folder: str | os.PathLike | None, sources: Sequence[Mapping]
) -> Iterator[tuple[str, str, list[tuple[Path, str, str]]]]:
    """Yield source, licence and (file, language, speaker) of its clips."""
    if data_folder is None:
        return
    root = Path(data_folder)
    if not root.is_dir():
        raise NotFoundError(f"no such data folder: {root}")
    if not sources:
        files = sorted(
            path
            for path in root.rglob("*")
            if path.suffix.lower() in AUDIO and path.is_file()
        )
        parts = [path.relative_to(root).parts for path in files]
        yield (
            root.name,
            "not stated",
            [
                (
                    path,
                    part[0] if len(part) > 1 else "unknown",
                    "/".join(part[:-1]) or path.stem,
                )
                for path, part in zip(files, parts, strict=True)
            ],
        )
    for source in sources:
        if not {"manifest", "licence"} <= set(source):
            raise SettingError(
                f"sources: each needs manifest and licence, not {dict(source)}"
            )
        name = source["manifest"]
        yield name, source["licence"], _read_source(root / name)


def _read_source(path: Path) -> list[tuple[Path, str, str]]:
    if not path.is_file():
        raise NotFoundError(
            f"no such manifest: {path}; --data_folder must hold the sources "
            "of the YAML, or --sources=[] takes any folder of audio"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if "wav" not in (reader.fieldnames or []):
            raise DataError(f"{path} lacks the column wav")
        return [
            (
                path.parent / row["wav"],
                row.get("language") or "unknown",
                row.get("speaker") or row.get("spk_id") or row["wav"],
            )
            for row in reader
        ]


def _decoded(
    found: Sequence[tuple[Path, str, str]],
    source: str,
    min_seconds: float,
    max_seconds: float,
    skipped: dict[str, list[str]],
) -> Iterator[Utterance]:
    for path, language, speaker in tqdm(found, desc=source, unit="clip"):
        try:
            seconds = inspect_audio(path)
        except DataError as error:
            skipped.setdefault(str(error).split(" ", 1)[0], []).append(
                str(path)
            )
            continue
        if not min_seconds <= seconds <= max_seconds:
            reason = "too short" if seconds < min_seconds else "too long"
            skipped.setdefault(reason, []).append(str(path))
            continue
        yield Utterance(
            ID=f"{source}/{path.stem}-{zlib.crc32(str(path).encode()):08x}",
            duration=seconds,
            wav=str(path.resolve()),
            spk_id=f"{source}/{speaker}",
            wrd="",
            language=language,
        )
