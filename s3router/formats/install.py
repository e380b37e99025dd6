"""Unpacks a bundle that was sent: `s3router install`.

What comes out are the files that were packed, byte by byte, or nothing: all
that the header says is checked before it is believed, hashes are compared,
and the folder appears when it is complete. Needs numpy and zstandard only.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from s3router.errors import (
    MismatchError,
    S3RouterError,
    SettingError,
)
from s3router.formats.bundle import MANIFEST, Bundle, check_inside
from s3router.formats.files import atomic_folder, sha256_file
from s3router.formats.install_masks import LayerMasks
from s3router.formats.pack_file import CHUNK, PLANES, PackReader

# Letters of a name in a message.
_LONG = 40


def install(
    packed: str | os.PathLike,
    output: str | os.PathLike,
    backbone: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Unpack a bundle into a folder.

    Arguments
    ---------
    packed : str or path
        A file of `pack`.
    output : str or path
        The bundle folder to write. One that is there is replaced, but only
        when the new one is complete.
    backbone : str or path, optional
        A bundle that has the files which were left out.

    Returns
    -------
    dict
        "bytes" of the bundle, "languages", and "from_backbone": files that
        were taken from there.

    Raises
    ------
    NotFoundError
        If the file or the other bundle is not there.
    FormatError
        If the file is truncated, altered or newer, or names a path outside
        the folder.
    MismatchError
        If the other bundle has another file of weights.
    SettingError
        If another bundle is needed, or the disk has not enough room.
    MissingDependencyError
        If zstandard is not installed.
    """
    with PackReader(packed) as reader, atomic_folder(output) as folder:
        installation = _Installation(reader, folder, backbone)
        installation.run()
        reader.end()
        try:
            bundle = Bundle.load(folder)
        except S3RouterError as error:
            raise reader.error("its manifest cannot be read") from error
        installation.compare(bundle)
    return {
        "bytes": installation.bytes,
        "languages": list(bundle.languages),
        "from_backbone": installation.borrowed,
    }


class _Installation:
    """Writes the files of a bundle in the order of the frames."""

    def __init__(
        self,
        reader: PackReader,
        folder: Path,
        backbone: str | os.PathLike | None,
    ) -> None:
        self._reader, self._folder, self._backbone = reader, folder, backbone
        self._masks: LayerMasks
        self._files: dict[str, str] = {}
        self._folders: set[str] = set()
        self._whole: set[str] = set()
        self.bytes = 0
        self.borrowed: list[str] = []

    def run(self) -> None:
        """Write everything, or raise what is wrong."""
        try:
            with tempfile.TemporaryFile(dir=self._folder) as kept:
                self._masks = LayerMasks(
                    self._reader, self._folder, self._whole, kept
                )
                self._unpack(self._reader.header)
        except S3RouterError:
            raise
        except OSError as error:
            # Its own text names a folder that is gone by now.
            raise SettingError(
                f"{self._reader.path} cannot be unpacked: {error.strerror}"
            ) from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._reader.error(
                f"its header: {type(error).__name__} {error}"
            ) from error

    def _unpack(self, header: dict[str, Any]) -> None:
        plain, graphs = header["plain"], header["graphs"]
        for entry in [*plain, *graphs]:
            self._announce(entry)
        self._check_room()
        self._masks.check(header["layers"].values(), graphs)
        for entry in plain:
            self._write(entry)
        for name, layer in header["layers"].items():
            self._masks.open(name, layer)
        for entry in graphs:
            self._write(entry)

    def compare(self, bundle: Bundle) -> None:
        """Raise FormatError if the manifest tells of other files."""
        stated = {n: f["sha256"] for n, f in bundle.files.items()}
        written = {n: h for n, h in self._files.items() if n != MANIFEST}
        if stated != written:
            odd = sorted(set(stated.items()) ^ set(written.items()))[0][0]
            raise self._reader.error(f"its manifest does not tell of {odd}")

    def _announce(self, entry: dict[str, Any]) -> None:
        """Check a file's name and size, before anything is written."""
        name, digest = entry["name"], entry["sha256"]
        if not isinstance(name, str) or not isinstance(digest, str):
            raise self._reader.error("a file has no name or hash")
        check_inside(self._reader.path, name)
        path = PurePosixPath(name)
        parents = {str(parent) for parent in path.parents}
        if str(path) != name or parents & set(self._files):
            raise self._reader.error(f"a file is called {name!r}")
        if name in self._files or name in self._folders:
            raise self._reader.error(f"{name} is there twice")
        self._files[name] = digest
        self._folders |= parents
        self.bytes += self._reader.number(entry["bytes"])

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._folder).free
        if self.bytes > free:
            raise SettingError(
                f"{self._reader.path} unpacks to {self.bytes / 1e6:.0f} MB, "
                f"but only {free / 1e6:.0f} MB are free"
            )

    def _create(self, name: str) -> IO[bytes]:
        """Open a new file for writing."""
        path = self._folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
        except OSError as error:
            short = name if len(name) < _LONG else f"{name[:_LONG]}..."
            raise self._reader.error(
                f"no file can be called {short!r}: {error.strerror}"
            ) from error

    def _write(self, entry: dict[str, Any]) -> None:
        """Write one file, and compare its size and hash."""
        name, size = entry["name"], entry["bytes"]
        digest, written = hashlib.sha256(), 0
        with self._create(name) as file:
            if "parts" not in entry:
                self._borrow(entry, file)
                self._whole.add(name)
                return
            for part in entry["parts"]:
                content = self._part(part, size - written)
                file.write(content)
                digest.update(content)
                written += len(content)
        if written != size or digest.hexdigest() != entry["sha256"]:
            raise self._reader.error(f"{name} does not come out as it was")
        self._whole.add(name)

    def _part(self, part: dict[str, Any], most: int) -> bytes:
        """Return the next bytes of a file."""
        if "frame" in part:
            content = self._reader.frame(part["frame"], min(most, CHUNK))
            return _together(content) if "planes" in part else content
        return self._masks.read(part, most)

    def _borrow(self, entry: dict[str, Any], file: IO[bytes]) -> None:
        """Take a file that was left out from another bundle."""
        name = entry["name"]
        if self._backbone is None:
            raise SettingError(
                f"{self._reader.path} was packed without {name}: name a "
                "bundle that has it with --backbone BUNDLE"
            )
        other = Bundle.load(self._backbone)
        source = other.path(name)
        if not source.is_file() or sha256_file(source) != entry["sha256"]:
            raise MismatchError(
                f"{self._backbone} has no {name} of the kind that "
                f"{self._reader.path} wants (SHA-256 "
                f"{entry['sha256'][:12]}...): name another bundle"
            )
        # No link: onnx refuses weights that have a second name.
        with source.open("rb") as content:
            shutil.copyfileobj(content, file)
        self.borrowed.append(name)


def _together(content: bytes) -> bytes:
    """Return bytes of weights that were put apart, in their order."""
    raw = np.frombuffer(content, np.uint8)
    size = len(raw) // PLANES
    even = raw[: size * PLANES].reshape(PLANES, size)
    return even.T.tobytes() + content[size * PLANES :]
