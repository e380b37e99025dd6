"""One session for all recognisers of a process that run the same graph."""

import threading
from collections.abc import Hashable, Sequence
from weakref import WeakValueDictionary

from s3router.formats.bundle import Bundle
from s3router.runtime.session import Session, open_session

# State of the process, since it is the process that should hold a graph once.
_OPEN: WeakValueDictionary[Hashable, Session] = WeakValueDictionary()
_LOCK = threading.Lock()


def open_shared(
    bundle: Bundle,
    files: Sequence[str],
    providers: Sequence[str] | str | None = None,
    threads: int | None = None,
    mode: str = "fold",
) -> Session:
    """Open a graph of a bundle, unless the process has it open.

    Arguments
    ---------
    bundle : Bundle
        The bundle; its files were verified.
    files : sequence of str
        The graph, and what else the session reads.
    providers : sequence of str or str, optional
        As for `open_session`.
    threads : int, optional
        As for `open_session`.
    mode : str
        As for `open_session`.

    Returns
    -------
    Session
        The same for equal content and settings, as long as somebody holds
        it. Its `run` may be called from several threads.
    """
    hashes = tuple(bundle.files[name]["sha256"] for name in files)
    wanted = providers if isinstance(providers, str) else tuple(providers or ())
    key = hashes, wanted, threads, mode
    with _LOCK:
        session = _OPEN.get(key)
        if session is None:
            path = bundle.path(files[0])
            session = open_session(path, providers, threads, mode)
            _OPEN[key] = session
        return session
