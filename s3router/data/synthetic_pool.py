"""Synthetic speech for pre-training, with the times of its phones.

Many languages and many words: names of places, languages and currencies from
Babel, and numbers. For speech with transcripts see `synthetic.py`.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from s3router.data.espeak import SAMPLE_RATE, SPEAKERS, synthesize_phones
from s3router.data.manifest import Utterance
from s3router.errors import DataError, MissingDependencyError, SettingError
from s3router.formats.files import atomic_file, write_json


def make_synthetic_pool(
    folder: str | os.PathLike,
    languages: Sequence[str],
    hours: float,
    seed: int,
) -> list[Utterance]:
    """Speak names of places, languages and currencies, and numbers.

    Arguments
    ---------
    folder : str or path
        Gets `<language>/*.flac`, and beside each a `.json` with its phones
        and their first samples; clips that are there are kept.
    languages : sequence of str
        Each gets the same share of the hours.
    hours : float
        In total.
    seed : int
        Of texts, voices, rates and pitches.

    Returns
    -------
    list of Utterance
        The clips; speakers are voices.

    Raises
    ------
    SettingError
        If there is no language.
    MissingDependencyError
        If espeakng-loader or Babel is missing.
    """
    if not languages:
        raise SettingError("synthetic_hours needs synthetic_languages")
    rows: list[Utterance] = []
    wanted = hours * 3600 / len(languages)
    with tqdm(total=round(hours * 3600), desc="synthetic", unit="s") as bar:
        for language in languages:
            made = 0.0
            number = 0
            words = _words(language)
            while made < wanted:
                row = _speak(Path(folder), language, words, number, seed)
                number += 1
                if row is None:
                    continue
                rows.append(row)
                made += row["duration"]
                bar.update(round(row["duration"]))
    return rows


def _words(language: str) -> list[str]:
    try:
        from babel import Locale
    except ImportError:
        raise MissingDependencyError(
            "synthetic speech for pre-training takes its words from Babel: "
            "pip install babel, or set --synthetic_hours=0"
        ) from None
    locale = Locale.parse(language)
    tables = (locale.territories, locale.languages, locale.currencies)
    return sorted({word for table in tables for word in table.values()})


def _speak(
    folder: Path, language: str, words: Sequence[str], number: int, seed: int
) -> Utterance | None:
    key = f"{seed}/{language}/{number}".encode()
    generator = np.random.default_rng(
        int.from_bytes(hashlib.sha256(key).digest()[:8], "little")
    )
    chosen = list(generator.choice(words, generator.integers(1, 4)))
    if generator.random() < 0.4:
        digits = generator.integers(1, 5)
        chosen.append(str(generator.integers(10**digits)))
    generator.shuffle(chosen)
    voice = SPEAKERS[generator.integers(len(SPEAKERS))]
    path = folder / language / f"{number:06d}.flac"
    # Clips from before their phones were kept are spoken once more.
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        try:
            samples, phones = synthesize_phones(
                ", ".join(chosen),
                language,
                voice,
                int(generator.integers(120, 230)),
                int(generator.integers(20, 80)),
                seed=number,
            )
        except DataError:  # a name that the voice has no sounds for
            return None
        write_json(path.with_suffix(".json"), phones)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            soundfile.write(file, samples, SAMPLE_RATE, format="FLAC")
    return Utterance(
        ID=f"synthetic/{language}/{number:06d}",
        duration=soundfile.info(path).duration,
        wav=str(path.resolve()),
        spk_id=f"synthetic/{voice}",
        wrd="",
        language=language,
    )
