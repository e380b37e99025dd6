"""The file *.s3r: a bundle for sending. A header, then frames of zstd.

    8 bytes    b"s3rpack\\n"
    2 x 4      format version; bytes of the header as stored (little endian)
    32         SHA-256 of all that follows
    header     JSON, compressed: files and layers, and the size of each frame
    frames     one after the other, in the order of the header

A frame is bounded by what the header says of it before it is unpacked, and the
header by this file. What is in the frames: `pack` and `install`.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from s3router.errors import (
    FormatError,
    MissingDependencyError,
    NotFoundError,
)
from s3router.formats.files import atomic_file

FORMAT_VERSION = 1
#: Bytes of a file in one frame, before compression.
CHUNK = 8 << 20
#: Into so many parts the bytes of weights are put: those of a float32.
PLANES = 4
#: Weights of one layer: some times what the largest encoders have.
MOST_WEIGHTS = 1 << 26
# Headers are some hundred kilobytes for a hundred languages.
_MOST_HEADER = 64 << 20
_MOST_WINDOW = 32 << 20
_MAGIC = b"s3rpack\n"
_START = struct.Struct("<8sII32s")
# Noise, as most weights and masks are, gains nothing from more.
_FAST, _SMALL = 1, 19
# What is shorter than this costs no time; what comes out smaller than this
# share of the entropy of its bytes is more than noise.
_SHORT, _NOISE = 1 << 16, 0.98


class PackWriter:
    """Collects frames, then writes the file.

    Arguments
    ---------
    body : binary file
        A temporary file, for reading and writing.
    """

    def __init__(self, body: IO[bytes]) -> None:
        zstandard = import_zstandard()
        self._body = body
        self.fast = zstandard.ZstdCompressor(level=_FAST).compress
        self.small = zstandard.ZstdCompressor(level=_SMALL).compress

    def squeeze(self, raw: bytes) -> bytes:
        """Return bytes compressed, with more effort where that pays."""
        quick = self.fast(raw)
        if len(raw) > _SHORT and len(quick) > _NOISE * _byte_entropy(raw):
            return quick
        return min(quick, self.small(raw), key=len)

    def frame(self, raw: bytes, compress: Callable[[bytes], bytes]) -> list:
        """Append bytes; return [stored, raw] bytes, for the header."""
        return self.append(compress(raw), len(raw))

    def append(self, payload: bytes, raw: int) -> list:
        """Append bytes that are compressed; return the same."""
        self._body.write(payload)
        return [len(payload), raw]

    def write(self, path: str | os.PathLike, header: dict[str, Any]) -> int:
        """Write the file, whole or not at all.

        Arguments
        ---------
        path : str or path
            The file.
        header : dict
            What the frames are.

        Returns
        -------
        int
            Its size in bytes.
        """
        text = json.dumps(header, ensure_ascii=True, separators=(",", ":"))
        packed = self.small(text.encode())
        digest = hashlib.sha256(packed)
        for chunk in self._chunks():
            digest.update(chunk)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            start = (_MAGIC, FORMAT_VERSION, len(packed), digest.digest())
            file.write(_START.pack(*start))
            file.write(packed)
            for chunk in self._chunks():
                file.write(chunk)
            size = file.tell()
        return size

    def _chunks(self) -> Any:
        self._body.seek(0)
        return iter(lambda: self._body.read(CHUNK), b"")


class PackReader:
    """Reads a file from its header on, frame by frame.

    Arguments
    ---------
    path : str or path
        The file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is truncated, altered, of another format or a newer version.
    MissingDependencyError
        If zstandard is not installed.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise NotFoundError(f"no such file: {self.path}")
        self._zstandard = import_zstandard()
        self._left = self.path.stat().st_size - _START.size
        self._file = self.path.open("rb")
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "PackReader":
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._file.close()

    def frame(self, sizes: Any, most: int) -> bytes:
        """Return the next frame, unpacked.

        Arguments
        ---------
        sizes : object
            [stored, raw] bytes, of the header.
        most : int
            What `raw` may be at most.

        Returns
        -------
        bytes
            As many as `raw`.

        Raises
        ------
        FormatError
            If the sizes are not possible, or the frame has another one.
        """
        if not isinstance(sizes, list) or len(sizes) != 2:
            raise self.error(f"{sizes!r} are no sizes of a frame")
        stored, raw = (self.number(size) for size in sizes)
        if raw > most:
            raise self.error(f"a frame of {raw} bytes, where {most} can be")
        if not raw and not stored:
            return b""
        return self._inflate(self._take(stored), raw)

    def number(self, value: Any, most: int | None = None) -> int:
        """Return a number of the header, if it is one, and none too large."""
        if type(value) is not int or value < 0:
            raise self.error(f"{value!r} is no size")
        if most is not None and value > most:
            raise self.error(f"{value} is more than {most}")
        return value

    def end(self) -> None:
        """Raise FormatError if something follows the last frame."""
        if self._left:
            raise self.error(f"{self._left} bytes belong to no file")

    def error(self, what: str) -> FormatError:
        """Return an error that names the file."""
        return FormatError(
            f"{self.path} is not a sound packed bundle ({what}): make it "
            "again with s3router pack"
        )

    def _read_header(self) -> dict[str, Any]:
        start = self._file.read(_START.size)
        if not start.startswith(_MAGIC):
            raise FormatError(
                f"{self.path} is not a packed bundle; make one with: "
                "s3router pack BUNDLE --output FILE.s3r"
            )
        if len(start) < _START.size:
            raise FormatError(f"{self.path} is truncated: it has no header")
        _, version, stored, digest = _START.unpack(start)
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{self.path} has format version {version}; this s3router "
                f"reads version {FORMAT_VERSION}: install the s3router that "
                "wrote it"
            )
        if hashlib.file_digest(self._file, "sha256").digest() != digest:
            raise FormatError(
                f"{self.path} is truncated or altered: its SHA-256 is not the "
                "one in it; copy it again"
            )
        self._file.seek(_START.size)
        text = self._inflate(self._take(stored), None)
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.error("its header is no JSON") from error
        if not isinstance(header, dict):
            raise self.error("its header is no object")
        return header

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise self.error("its frames are longer than the file")
        self._left -= size
        return self._file.read(size)

    def _inflate(self, payload: bytes, raw: int | None) -> bytes:
        """Return a frame's bytes; None: of a header's unknown size."""
        zstandard = self._zstandard
        reader = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        most = _MOST_HEADER if raw is None else raw
        try:
            size = zstandard.frame_content_size(payload)
            if not 0 <= size <= most or raw not in (None, size):
                raise self.error(f"a frame of {size} bytes instead of {most}")
            content = reader.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise self.error(f"zstd: {error}") from error
        if len(content) != size:
            raise self.error("a frame is cut off")
        return content


def _byte_entropy(raw: bytes) -> float:
    """Return what independent bytes of these frequencies take at the least."""
    counts = np.bincount(np.frombuffer(raw, np.uint8))
    counts = counts[counts > 0]
    return float(counts @ np.log2(len(raw) / counts)) / 8


def import_zstandard() -> Any:
    """Return the module zstandard; only packing and installing need it.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError(
            f"packed bundles need zstandard ({error}): pip install zstandard"
        ) from error
    return zstandard
