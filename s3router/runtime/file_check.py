"""Hashes files of a bundle before they are opened, and not again and again."""

from collections.abc import Iterable
from pathlib import Path

from s3router.formats.bundle import Bundle


class FileCheck:
    """Hashes files that were not, or that have changed since.

    Languages share files; and a bundle may be replaced while one is open.

    Arguments
    ---------
    bundle : Bundle
        Says what their hashes are.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._seen: dict[str, tuple[int, ...] | None] = {}

    def __call__(self, names: Iterable[str]) -> None:
        """Compare files with the manifest.

        Arguments
        ---------
        names : iterable of str
            Paths in the bundle.

        Raises
        ------
        NotFoundError
            If one is missing.
        FormatError
            If one is truncated or altered.
        """
        found = {name: _state(self._bundle.path(name)) for name in set(names)}
        self._bundle.verify(
            name
            for name, state in found.items()
            if state is None or state != self._seen.get(name)
        )
        self._seen.update(found)


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
