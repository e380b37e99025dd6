"""Which trials there are, in which order, and who runs them.

A rate is chosen on dev, with the first seed; only then do other seeds run,
and only of the chosen rate is what it recognised in test looked at.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from encoder_probes import ProbeSizes
from encoder_workbench import Place, Trial, do

from s3router.errors import VerificationError


@dataclass
class Cell:
    """One row of the result: a method on a task with so many labels.

    Arguments
    ---------
    place : Place
        The encoder.
    base : mapping
        What all its trials share.
    rates : tuple of float
        Tried on dev, with the first seed.
    seeds : tuple of int
        Draws that are tested with the best rate.

    Attributes
    ----------
    search : dict of float to dict
        Results of the first seed, by rate; of these, dev may be read.
    final : dict of int to dict
        Results of the best rate, by seed; of these, test may be read.
    """

    place: Place
    base: Trial
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        self.search: dict[float, dict] = {}
        self.final: dict[int, dict] = {}

    @property
    def rate(self) -> float:
        """The rate with the fewest dev errors; of equal ones the smallest."""
        return min(
            self.search,
            key=lambda rate: (self.search[rate]["dev"]["rate"], rate),
        )

    def searches(self) -> list[Trial]:
        """Return the trials that choose the rate."""
        shared = {**self.base, "seed": self.seeds[0]}
        return [{**shared, "rate": rate} for rate in self.rates]

    def add(self, trial: Trial, result: dict) -> list[Trial]:
        """Take in a result; return the trials that it makes possible."""
        if trial["seed"] != self.seeds[0]:
            self.final[trial["seed"]] = result
            return []
        self.search[trial["rate"]] = result
        if len(self.search) < len(self.rates):
            return []
        self.final[trial["seed"]] = self.search[self.rate]
        chosen = {**self.base, "rate": self.rate}
        return [{**chosen, "seed": seed} for seed in self.seeds[1:]]

    @property
    def trials(self) -> int:
        """How many trials there are in all."""
        return len(self.rates) + len(self.seeds) - 1


class Here(Executor):
    """Runs a job at once, in this process."""

    def submit(
        self, function: Callable, /, *args: object, **kwargs: object
    ) -> Future:
        """Return a future that is done."""
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def open_pool(jobs: int) -> Executor:
    """Return what runs jobs: this process for one, else so many others.

    Each runs on one thread: the matrices are small, and the trials many.
    """
    torch.set_num_threads(1)
    if jobs == 1:
        return Here()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read when a process starts: pages of large tensors are not given back
    # and zeroed again and again, which took a twentieth of the time.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 25))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 29))
    return ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


class Progress:
    """A line for each finished job, with an estimate of what is left.

    Arguments
    ---------
    total : int
        Jobs in all.
    jobs : int
        Jobs at a time.
    """

    def __init__(self, total: int, jobs: int) -> None:
        self.total = total
        self.jobs = jobs
        self.done = 0
        self.kept = 0
        self._started = time.perf_counter()

    def finish(self, text: str, made: bool) -> None:
        """Count a job, and whether its result was not there yet."""
        self.done += 1
        if not made:
            self.kept += 1
        fresh = self.done - self.kept
        left = self.total - self.done
        line = f"[{self.done}/{self.total}] {text}"
        if fresh and left:
            passed = time.perf_counter() - self._started
            minutes = passed / fresh * left / 60
            line += f"; about {minutes:.0f} min left"
        print(line, flush=True)


def run_jobs(
    cells: Iterable[Cell],
    probes: Iterable[tuple[Place, str, ProbeSizes]],
    jobs: int,
) -> list[dict]:
    """Run all trials and probes.

    Arguments
    ---------
    cells : iterable of Cell
        Filled in.
    probes : iterable of (Place, name, sizes)
        Probes to run.
    jobs : int
        Processes, each of one thread.

    Returns
    -------
    list of dict
        Results of the probes, each with `encoder`.
    """
    cells, probes = list(cells), list(probes)
    queue: deque[tuple] = deque()
    for place, name, sizes in probes:
        queue.append((place, "probe", (name, sizes), None))
    for cell in cells:
        for trial in cell.searches():
            queue.append((cell.place, "trial", trial, cell))
    total = len(probes) + sum(cell.trials for cell in cells)
    progress = Progress(total, jobs)
    results: list[dict] = []
    with open_pool(jobs) as pool:
        try:
            _prepare(pool, cells)
            _work(pool, queue, jobs, progress, results)
        except BrokenProcessPool:
            raise VerificationError(
                "a process of the benchmark was ended from outside, maybe for "
                "want of memory; run it again with fewer --jobs, it goes on "
                "where it was"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _prepare(pool: Executor, cells: Iterable[Cell]) -> None:
    """Compute features, each set once and before two trials want it."""
    wanted: dict[tuple, tuple[Place, Trial]] = {}
    for cell in cells:
        for seed in cell.seeds:
            trial = {**cell.base, "seed": seed}
            key = (cell.place, trial["task"], trial.get("minutes"), seed)
            wanted[key] = (cell.place, trial)
    print(f"front-end features of {len(wanted)} labelled draws", flush=True)
    # One job a task: its draws share dev and test.
    groups: dict[tuple, list] = {}
    for (place, task, *_), job in wanted.items():
        groups.setdefault((place, task), []).append(job)
    futures = [pool.submit(_features_of, group) for group in groups.values()]
    for future in futures:
        future.result()


def _features_of(group: list[tuple[Place, Trial]]) -> None:
    for place, trial in group:
        do(place, "features", trial)


def _work(
    pool: Executor,
    queue: deque[tuple],
    jobs: int,
    progress: Progress,
    results: list[dict],
) -> None:
    running: dict[Future, tuple] = {}
    while queue or running:
        while queue and len(running) < jobs:
            job = queue.popleft()
            began = time.perf_counter()
            running[pool.submit(do, *job[:3])] = (*job, began)
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            place, kind, argument, cell, began = running.pop(future)
            result, made = future.result()
            seconds = time.perf_counter() - began
            if kind == "probe":
                results.append({"encoder": place.encoder, **result})
                text = f"{place.encoder}: probe of {argument[0]}"
            else:
                # What a cell still needs goes first: rows become complete.
                for trial in reversed(cell.add(argument, result)):
                    queue.appendleft((place, "trial", trial, cell))
                text = f"{place.encoder}: {describe(argument, result)}"
            progress.finish(f"{text}, {seconds:.0f} s", made)


def describe(trial: Trial, result: dict) -> str:
    """Return a trial and its dev number in words."""
    minutes = trial["minutes"]
    labels = "all labels" if minutes is None else f"{minutes:g} min"
    text = (
        f"{trial['task']}, {labels}, {trial['method']}, rate "
        f"{trial['rate']:g}, seed {trial['seed']}: "
        f"dev {100 * result['dev']['rate']:.1f}"
    )
    return text + (" (diverged)" if result["diverged"] else "")
