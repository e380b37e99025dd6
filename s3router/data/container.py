"""Finds audio files that end before their own headers say so.

libsndfile shortens such WAV and Ogg files without a word. Looks at the bytes
of the container only; decoding is the work of `audio.py`.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

# A WAV data chunk of this size and above was written to a pipe, by a program
# that did not know the length.
_UNKNOWN_LENGTH = 0x7FFF0000

# An Ogg page has a header of 27 bytes, up to 255 segment sizes, and segments
# of up to 255 bytes (RFC 3533, section 6).
_OGG_HEADER = 27
_OGG_PAGE = _OGG_HEADER + 255 + 255 * 255


def missing_bytes(path: str | os.PathLike) -> int:
    """Return how many bytes a file lacks at its end.

    Arguments
    ---------
    path : str or path
        Any file that can be read.

    Returns
    -------
    int
        The least number of bytes that are missing; 0 for whole files, and for
        those that are neither WAV nor Ogg, which tell of it otherwise.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> path = Path(getfixture("tmp_path")) / "a.wav"
    >>> soundfile.write(path, np.zeros(100), 16000)
    >>> _ = path.write_bytes(path.read_bytes()[:-30])
    >>> missing_bytes(path)
    30
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _missing_wav(file, size)
        if head[:4] == b"OggS":
            return _missing_ogg(file, size)
    return 0


def _missing_wav(file: BinaryIO, size: int) -> int:
    """Walk the chunks up to the samples."""
    while len(head := file.read(8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        if kind == b"data":
            known = length < _UNKNOWN_LENGTH
            return max(0, file.tell() + length - size) if known else 0
        file.seek(length + length % 2, os.SEEK_CUR)
    return 0


def _missing_ogg(file: BinaryIO, size: int) -> int:
    """Look whether the last page is whole."""
    start = max(0, size - _OGG_PAGE)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0:
        return 0
    body = page + _OGG_HEADER
    if len(tail) < body:
        return body - len(tail)
    segments = tail[body : body + tail[body - 1]]
    end = body + tail[body - 1] + sum(segments)
    return max(0, end - len(tail))
