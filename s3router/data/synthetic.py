"""A corpus of synthetic speech in the layout of Common Voice releases.

For the quickstart and for tests; the folder says that it is synthetic. Reading
such a layout is the business of the Common Voice recipe, not of this file.
"""

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from s3router.data.espeak import SAMPLE_RATE, SPEAKERS, synthesize
from s3router.data.synthetic_text import sentences
from s3router.errors import SettingError, one_of
from s3router.formats.files import atomic_file, read_json, write_json

COLUMNS = (
    "client_id",
    "path",
    "sentence",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "variant",
    "locale",
    "segment",
)

SPLITS = ("train", "dev", "test")

#: No voice is in two splits.
SPLIT_VOICES = {
    "train": SPEAKERS[:8],
    "dev": SPEAKERS[8:12],
    "test": SPEAKERS[12:16],
}

#: Names that Common Voice writes with a region.
REGIONS = {"zh": "zh-CN", "sv": "sv-SE"}

_NOTE = """SYNTHETIC SPEECH

Made by eSpeak NG through s3router.data.synthetic: no human voice is in
this folder. The layout is that of Common Voice, the content is not. Error
rates on it say that a chain works, not how well it recognises people.
"""


def make_corpus(
    folder: str | os.PathLike,
    languages: Sequence[str],
    sizes: Mapping[str, float],
    seed: int = 0,
    unit: str = "sentences",
    progress: bool = True,
) -> Path:
    """Make a corpus; go on where an earlier call with these settings ended.

    Arguments
    ---------
    folder : str or path
        Gets `<language>/{train,dev,test,validated}.tsv`, `<language>/clips/`
        and a README.txt that calls it synthetic.
    languages : sequence of str
        Names as in Common Voice ("zh-CN", "es"); see
        `s3router.data.synthetic_text.TABLES` for what there is.
    sizes : mapping
        Of "train", "dev" and "test": how many sentences, or minutes.
    seed : int
        Of texts, voices, rates, pitches and noise.
    unit : str
        What `sizes` counts: "sentences" or "minutes".
    progress : bool
        Show a bar.

    Returns
    -------
    pathlib.Path
        `folder`. Sentences and voices of the splits are disjoint.

    Raises
    ------
    SettingError
        If a size is missing or not positive, or the folder has a corpus of
        other settings.
    MissingDependencyError
        If espeakng-loader is not installed.
    """
    folder = Path(folder)
    one_of(unit, ("sentences", "minutes"), "unit")
    for split in SPLITS:
        if not sizes.get(split, 0) > 0:
            raise SettingError(f"sizes needs {split!r}, above 0: {dict(sizes)}")
    names = [REGIONS.get(language, language) for language in languages]
    settings = {
        "format_version": 1,
        "sizes": {split: sizes[split] for split in SPLITS},
        "unit": unit,
        "seed": seed,
    }
    _check_settings(folder, settings)
    write_json(folder / "synthetic.json", settings)
    with atomic_file(folder / "README.txt") as temporary:
        temporary.write_text(_NOTE, encoding="utf-8")
    bar = tqdm(
        total=round(sum(settings["sizes"].values()) * len(names), 3),
        desc="synthetic speech",
        unit=unit[:-1],
        disable=not progress,
    )
    with bar:
        for name in names:
            _make_language(folder / name, name, settings, bar)
    return folder


def _check_settings(folder: Path, settings: Mapping) -> None:
    path = folder / "synthetic.json"
    if path.is_file() and read_json(path) != settings:
        raise SettingError(
            f"{folder} has a synthetic corpus of other settings; remove it or "
            "choose another folder"
        )


def _make_language(
    folder: Path, language: str, settings: Mapping, bar: tqdm
) -> None:
    rows: dict[str, list[dict]] = {}
    texts = sentences(language, settings["seed"])
    for split in SPLITS:
        wanted = settings["sizes"][split]
        rows[split] = []
        done = 0.0
        while done < wanted:
            row, seconds = _make_clip(
                folder,
                language,
                split,
                len(rows[split]),
                next(texts),
                settings["seed"],
            )
            rows[split].append(row)
            step = 1 if settings["unit"] == "sentences" else seconds / 60
            done += step
            bar.update(step)
        _write_tsv(folder / f"{split}.tsv", rows[split])
    _write_tsv(
        folder / "validated.tsv", [r for split in SPLITS for r in rows[split]]
    )


def _make_clip(
    folder: Path,
    language: str,
    split: str,
    number: int,
    sentence: str,
    seed: int,
) -> tuple[dict, float]:
    key = f"{seed}/{language}/{split}/{number}".encode()
    digest = hashlib.sha256(key).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    voice = str(generator.choice(SPLIT_VOICES[split]))
    name = f"synthetic_{language}_{split}_{number:05d}.flac"
    path = folder / "clips" / name
    rate, pitch = generator.integers((130, 35), (190, 66))
    noise = int(generator.integers(2**31))
    if not path.is_file():
        samples = synthesize(
            sentence, language, voice, int(rate), int(pitch), noise
        )
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            soundfile.write(file, samples, SAMPLE_RATE, format="FLAC")
    row = dict.fromkeys(COLUMNS, "")
    row.update(
        client_id=hashlib.sha512(f"{language}/{voice}".encode()).hexdigest(),
        path=name,
        sentence=sentence,
        up_votes="2",
        down_votes="0",
        accents=f"synthetic, eSpeak NG {voice}",
        locale=language,
    )
    return row, soundfile.info(path).duration


def _write_tsv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with atomic_file(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(
                file,
                COLUMNS,
                delimiter="\t",
                quoting=csv.QUOTE_NONE,
                quotechar=None,
                lineterminator="\n",
            )
            writer.writeheader()
            writer.writerows(rows)
