"""Keeps account of what preparation keeps and skips, and writes it down.

Every corpus's preparation uses it, so that nothing vanishes silently.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s3router.data.manifest import Utterance, write_manifest
from s3router.errors import DataError
from s3router.formats.files import write_json

logger = logging.getLogger(__name__)


@dataclass
class Split:
    """What became of one part of a corpus.

    Arguments
    ---------
    name : str
        train, dev or test.
    source : str
        The file that lists its rows.
    rows : int
        How many it lists.
    kept : list of Utterance
        Those that go into the manifest.
    skipped : list of dict
        Those that are left out, with the reason.
    not_drawn : int
        Those that were sound, but not drawn for a smaller training set.
    """

    name: str
    source: str = ""
    rows: int = 0
    kept: list[Utterance] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)
    not_drawn: int = 0

    def skip(self, line: int, path: str, reason: str, detail: str = "") -> None:
        """Note a row that is left out.

        Arguments
        ---------
        line : int
            Its line in `source`.
        path : str
            The clip as it is named there.
        reason : str
            A few words that others with the same fault share.
        detail : str
            What is particular to this one.
        """
        self.skipped.append(
            {
                "split": self.name,
                "line": line,
                "path": path,
                "reason": reason,
                "detail": detail,
            }
        )

    @property
    def minutes(self) -> float:
        """Return the minutes of speech that are kept."""
        return sum(u["duration"] for u in self.kept) / 60

    def reasons(self) -> dict[str, int]:
        """Return how many rows were left out for each reason."""
        return dict(Counter(s["reason"] for s in self.skipped).most_common())

    def summary(self) -> str:
        """Return what became of the split in one line."""
        text = (
            f"{self.name}: {len(self.kept)} of {self.rows} rows, "
            f"{self.minutes:.1f} min"
        )
        if self.not_drawn:
            text += f"; {self.not_drawn} not drawn"
        if self.skipped:
            why = ", ".join(f"{n} {why}" for why, n in self.reasons().items())
            text += f"; skipped {len(self.skipped)}: {why}"
        return text

    def numbers(self) -> dict:
        """Return rows, kept, minutes, not_drawn and skipped by reason."""
        return {
            "rows": self.rows,
            "kept": len(self.kept),
            "minutes": round(self.minutes, 3),
            "not_drawn": self.not_drawn,
            "skipped": self.reasons(),
        }


def write_splits(
    save_folder: str | os.PathLike,
    splits: Sequence[Split],
    facts: Mapping[str, object],
) -> dict[str, dict]:
    """Write a manifest for each split and `skipped.json`; log one line each.

    Arguments
    ---------
    save_folder : str or path
        Made if missing.
    splits : sequence of Split
        All of a corpus.
    facts : mapping
        What else `skipped.json` records: language, source, options.

    Returns
    -------
    dict
        Split name to its numbers.

    Raises
    ------
    DataError
        If nothing of a split is left; `skipped.json` is written, and no
        manifest is.
    """
    save_folder = Path(save_folder)
    report = save_folder / "skipped.json"
    numbers = {split.name: split.numbers() for split in splits}
    skipped = [entry for split in splits for entry in split.skipped]
    write_json(
        report,
        {"format_version": 1, **facts, "splits": numbers, "skipped": skipped},
    )
    for split in splits:
        if not split.kept:
            raise DataError(_nothing_left(split, report))
    for split in splits:
        write_manifest(save_folder / f"{split.name}.csv", split.kept)
        # A smaller test set is another test set: say so louder.
        lost = split.name != "train" and split.skipped
        where = f"; listed in {report}" if split.skipped else ""
        level = logging.WARNING if lost else logging.INFO
        logger.log(level, "%s%s", split.summary(), where)
    return numbers


def _nothing_left(split: Split, report: Path) -> str:
    text = f"nothing of {split.source} can be used: {split.summary()}"
    if split.skipped:
        first = split.skipped[0]
        why = first["detail"] or first["reason"]
        text += f"; the first is {first['path']} ({why}); all are in {report}"
    return text
