"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Return how many cores this process may use, 1 or more.

    In a container or under a scheduler these can be fewer than the machine's.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
