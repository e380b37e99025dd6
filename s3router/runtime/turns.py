"""Many read, or one writes: turns at what is changed in place."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock for many readers and one writer, who is let in before new ones.

    Example
    -------
    >>> turns = Turns()
    >>> with turns.together(), turns.together():
    ...     print("two read")
    two read
    >>> with turns.alone():
    ...     print("one writes")
    one writes
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0
        self._writing = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold off writers; others may read as well."""
        with self._changed:
            # Of writers that wait too: a stream of readers would starve them.
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold off everybody else, once those who read are done."""
        with self._changed:
            self._writers += 1
            try:
                self._changed.wait_for(
                    lambda: not self._readers and not self._writing
                )
                self._writing = True
            except BaseException:
                self._leave()
                raise
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._leave()

    def _leave(self) -> None:
        self._writers -= 1
        self._changed.notify_all()
