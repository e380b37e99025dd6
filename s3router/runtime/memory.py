"""How much memory this process has, as the system counts it.

Linux tells what is private in `/proc/self/smaps_rollup`. Elsewhere only the
peak is known, and on Windows not even that.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

_ROLLUP = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")
#: Ours to the system's names.
_KINDS = {
    # Not Private_Dirty: pages of a file that was just written are dirty too,
    # and a bundle's are, right after export.
    "private": "Anonymous",
    "private_dirty": "Private_Dirty",
    "private_clean": "Private_Clean",
    "proportional": "Pss",
}


def memory_use() -> dict[str, int | None]:
    """Return what this process holds now, and the most that it ever held.

    Returns
    -------
    dict of str to int or None
        Bytes, None where the system does not tell. "private": pages that
        lie in no file; nobody shares them and they cannot be dropped.
        "private_dirty", "private_clean": pages that only this process has at
        the moment, those of files among them, as weights that were left in
        theirs; dirty ones differ from the disk. "proportional": all pages,
        those that several processes share in equal parts. "peak": the most
        that was ever resident, files included.

    Example
    -------
    >>> use = memory_use()
    >>> use["private"] is None or use["private"] < use["peak"]
    True
    """
    found = _kilobytes(_ROLLUP, _KINDS.values())
    use = {ours: found.get(name) for ours, name in _KINDS.items()}
    peak = _kilobytes(_STATUS, ["VmHWM"]).get("VmHWM")
    return {**use, "peak": _peak_resident() if peak is None else peak}


def _kilobytes(path: Path, names: Iterable[str]) -> dict[str, int]:
    """Return lines like "Pss:  12 kB" in bytes; nothing without the file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    wanted = set(names)
    return {k: 1024 * int(v.split()[0]) for k, v in pairs if k in wanted}


def _peak_resident() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
