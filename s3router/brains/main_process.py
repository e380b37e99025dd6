"""Work that one process of several does while the others wait.

SpeechBrain's `run_on_main` waits in the process group that trains, whose
patience ends after two hours, and sends what the function returned to all:
both are wrong for work that takes long and leaves large files behind.
"""

import datetime
from collections.abc import Callable

import torch
from speechbrain.utils.distributed import (
    MainProcessContext,
    is_distributed_initialized,
)
from torch import distributed

#: How long the others wait for the main process.
PATIENCE = datetime.timedelta(days=30)


def process_number() -> tuple[int, int]:
    """Return which process this is, from 0, and how many there are.

    Example
    -------
    >>> process_number()
    (0, 1)
    """
    if not is_distributed_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def alone() -> MainProcessContext:
    """Return a context in which SpeechBrain sends nothing to the others.

    Some of its functions, as loggers', wait for all processes to call them.
    """
    return MainProcessContext()


def on_main(function: Callable, *args: object, **kwargs: object) -> None:
    """Call a function on the main process; the others wait until it is done.

    To be called by all processes. Where the function fails, the error is
    raised on the main process, and the others exit without a word.

    Arguments
    ---------
    function : callable
        Leaves files behind; what it returns is dropped.
    *args, **kwargs
        Its arguments.

    Example
    -------
    >>> on_main(print, "once")
    once
    """
    number, count = process_number()
    if count == 1:
        function(*args, **kwargs)
        return
    # A group of its own, on the CPU, so that no watchdog of a GPU's group
    # takes the waiting for a hang.
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    done = torch.zeros(1)
    try:
        if number == 0:
            with alone():
                function(*args, **kwargs)
            done += 1
    finally:
        distributed.broadcast(done, src=0, group=group)
        distributed.destroy_process_group(group)
    if not done:
        raise SystemExit(1)


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, on each of them.

    Arguments
    ---------
    values : torch.Tensor
        On the device that the process group talks through.

    Returns
    -------
    torch.Tensor
        Of the same shape; `values` itself if there is one process.

    Example
    -------
    >>> sum_over_processes(torch.ones(2))
    tensor([1., 1.])
    """
    if process_number()[1] > 1:
        distributed.all_reduce(values)
    return values
