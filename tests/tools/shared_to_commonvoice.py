#!/usr/bin/env python3
"""Lays packs of recorded speech out as a Common Voice release.

A fixture for tests and for results on real speech, no part of the product:
> python tests/tools/shared_to_commonvoice.py zh_dsp20 is_samromur \
    --output /tmp/cv --minutes 2 --seed 0

A pack is a folder with train.csv, dev.csv and test.csv (columns ID, duration,
wav, language, speaker, text) and its audio. Each becomes
`<output>/<language>/{train,dev,test,validated}.tsv` and `clips/`. With
--minutes a seeded, speaker-balanced part of train is kept; dev and test are
kept whole. Of a pack that mixes languages, as zh_dsp20, the one that it is
named after is kept; --mixed keeps all of its rows under that name.
"""

import argparse
import csv
import hashlib
import os
import shutil
import sys
from pathlib import Path

from s3router.data.subset import balanced_order

COLUMNS = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes "
    "age gender accents variant locale segment"
).split()

# Where Common Voice has another name for a language.
NAMES = {"zh": "zh-CN", "sv": "sv-SE", "hy": "hy-AM", "ga": "ga-IE"}


def default_shared() -> Path:
    """Return the folder of shared material; it need not exist."""
    root = Path(__file__).resolve().parents[2]
    return Path(os.environ.get("S3ROUTER_SHARED", root.parent / "shared"))


def convert(
    packs: list[str],
    output: str | Path,
    minutes: float | None = None,
    seed: int = 0,
    shared: str | Path | None = None,
    mixed: bool = False,
    copy: bool = False,
    limits: dict[str, int] | None = None,
) -> list[str]:
    """Convert packs; return the names of the languages that were written.

    Arguments
    ---------
    packs : list of str
        Names of folders in `<shared>/data`. Packs of one language are joined.
    output : str or Path
        The release to write.
    minutes : float, optional
        Minutes of train to keep; None keeps all.
    seed : int
        Seed of that draw.
    shared : str or Path, optional
        Folder of shared material.
    mixed : bool
        Keep rows of other languages than the pack's own.
    copy : bool
        Copy the clips; else link to them.
    limits : dict of str to int, optional
        Split name to the most clips to keep, for quick tests only.

    Returns
    -------
    list of str
        Common Voice names.
    """
    data = Path(shared or default_shared()) / "data"
    languages: dict[str, dict[str, list[dict]]] = {}
    for pack in packs:
        own = pack.split("_")[0]
        name = NAMES.get(own, own)
        splits = languages.setdefault(name, {})
        for split in ("train", "dev", "test"):
            rows = read_pack(data / pack / f"{split}.csv")
            if not mixed:
                rows = [row for row in rows if row["language"] == own]
            splits.setdefault(split, []).extend(rows)
    for name, splits in languages.items():
        if minutes is not None:
            splits["train"] = draw(splits["train"], minutes, seed)
        for split, most in (limits or {}).items():
            splits[split] = spread(splits[split], most)
        write_language(Path(output) / name, name, splits, copy)
    return list(languages)


def read_pack(path: Path) -> list[dict]:
    """Return the rows of a pack's CSV, with absolute paths."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["wav"] = str((path.parent / row["wav"]).resolve())
    return rows


def draw(rows: list[dict], minutes: float, seed: int) -> list[dict]:
    """Return a speaker-balanced part of about so many minutes."""
    order = balanced_order([(r["ID"], r["speaker"]) for r in rows], seed)
    drawn, seconds = set(), 0.0
    for i in order:
        if seconds >= 60 * minutes:
            break
        drawn.add(i)
        seconds += float(rows[i]["duration"])
    return [row for i, row in enumerate(rows) if i in drawn]


def spread(rows: list[dict], most: int) -> list[dict]:
    """Return at most so many rows, evenly over the list."""
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def write_language(
    folder: Path, name: str, splits: dict[str, list[dict]], copy: bool
) -> None:
    """Write the tables and clips of one language."""
    clips = folder / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    everything = [row for rows in splits.values() for row in rows]
    for table, rows in [*splits.items(), ("validated", everything)]:
        lines = ["\t".join(COLUMNS)]
        lines += ["\t".join(cells(row, name)) for row in rows]
        text = "\n".join(lines) + "\n"
        (folder / f"{table}.tsv").write_text(text, encoding="utf-8")
    for row in everything:
        source = Path(row["wav"])
        target = clips / source.name
        if target.is_symlink() or target.exists():
            target.unlink()
        if copy:
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source)


def cells(row: dict, name: str) -> list[str]:
    """Return the cells of one row, in the order of `COLUMNS`."""
    known = {
        "client_id": row["speaker"],
        "path": Path(row["wav"]).name,
        "sentence_id": hashlib.sha256(row["text"].encode()).hexdigest(),
        "sentence": row["text"],
        "up_votes": "2",
        "down_votes": "0",
        "locale": name,
    }
    return [known.get(column, "") for column in COLUMNS]


def main(arguments: list[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="+", metavar="PACK")
    parser.add_argument("--output", required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", metavar="DIR")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--copy", action="store_true")
    options = vars(parser.parse_args(arguments))
    data = Path(options["shared"] or default_shared()) / "data"
    for pack in options["packs"]:
        if not (data / pack / "train.csv").is_file():
            raise SystemExit(f"no such pack: {data / pack}")
    names = convert(**options)
    print(f"wrote {', '.join(names)} to {options['output']}")


if __name__ == "__main__":
    main(sys.argv[1:])
