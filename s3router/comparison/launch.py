"""Who runs the commands: this machine, ray, or a cluster through submitit.

A launcher takes commands and yields each with its exit status as it ends.
Must not know what is compared.
"""

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from s3router.errors import MissingDependencyError, SettingError, one_of

Command = Sequence[str]


def run_command(command: Command, log: str, threads: int | None) -> int:
    """Run one command, its output into a file; return its exit status.

    Arguments
    ---------
    command : sequence of str
        Program and arguments.
    log : str
        The file; written anew.
    threads : int, optional
        For numeric libraries; None leaves it to them.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as file:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        ).returncode


class Launcher(ABC):
    """Runs commands, some at a time."""

    @abstractmethod
    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """Yield (place, exit status) of each command as it ends.

        Arguments
        ---------
        commands : sequence of sequence of str
            What to run.
        logs : sequence of str
            A file for the output of each.
        """


class Local(Launcher):
    """Processes of this machine.

    Arguments
    ---------
    jobs : int
        At a time; they share the cores.
    """

    def __init__(self, jobs: int = 1):
        self.jobs = jobs
        cores = len(os.sched_getaffinity(0))
        self._threads = None if jobs == 1 else max(1, cores // jobs)

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        with ThreadPoolExecutor(self.jobs) as pool:
            places = {
                pool.submit(run_command, command, log, self._threads): place
                for place, (command, log) in enumerate(
                    zip(commands, logs, strict=True)
                )
            }
            try:
                for future in as_completed(places):
                    yield places[future], future.result()
            finally:
                # Interrupted: what has not begun never does.
                pool.shutdown(wait=False, cancel_futures=True)


class Ray(Launcher):
    """Tasks of a ray cluster, or of this machine where there is none.

    Arguments
    ---------
    jobs : int
        Parts into which the cores of a machine are divided.

    Raises
    ------
    MissingDependencyError
        If ray is not installed.
    """

    def __init__(self, jobs: int = 1):
        try:
            import ray
        except ImportError:
            raise MissingDependencyError(
                "--launcher ray needs ray: pip install ray"
            ) from None
        self._ray = ray
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        self._cores = max(1, int(ray.cluster_resources()["CPU"]) // jobs)

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        task = self._ray.remote(num_cpus=self._cores)(run_command)
        places = {
            task.remote(list(command), log, self._cores): place
            for place, (command, log) in enumerate(
                zip(commands, logs, strict=True)
            )
        }
        waiting = list(places)
        while waiting:
            (ended,), waiting = self._ray.wait(waiting)
            yield places[ended], self._ray.get(ended)


class Submitit(Launcher):
    """Jobs of a Slurm cluster, or of this machine where there is none.

    Arguments
    ---------
    jobs : int
        Jobs at a time, of an array.
    folder : pathlib.Path
        For submitit's own files, seen by all machines.
    parameters : mapping, optional
        Of submitit's executor, as `{"timeout_min": 240, "gpus_per_node": 1}`.

    Raises
    ------
    MissingDependencyError
        If submitit is not installed.
    """

    def __init__(self, jobs: int, folder: Path, parameters: dict | None = None):
        try:
            import submitit
        except ImportError:
            raise MissingDependencyError(
                "--launcher submitit needs submitit: pip install submitit"
            ) from None
        self._submitit = submitit
        self._executor = submitit.AutoExecutor(folder=str(folder))
        self._executor.update_parameters(
            **{
                "timeout_min": 24 * 60,
                "slurm_array_parallelism": jobs,
                **(parameters or {}),
            }
        )

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        with self._executor.batch():
            jobs = [
                self._executor.submit(run_command, list(command), log, None)
                for command, log in zip(commands, logs, strict=True)
            ]
        places = {job.job_id: place for place, job in enumerate(jobs)}
        for job in self._submitit.helpers.as_completed(jobs):
            yield places[job.job_id], job.result()


LAUNCHERS = ("local", "ray", "submitit")


def build_launcher(name: str, jobs: int, folder: Path) -> Launcher:
    """Return a launcher by its name.

    Arguments
    ---------
    name : str
        local, ray or submitit.
    jobs : int
        Runs at a time.
    folder : pathlib.Path
        Of the comparison.

    Raises
    ------
    SettingError
        If the name is unknown or jobs is below 1.
    MissingDependencyError
        If what it needs is not installed.
    """
    one_of(name, LAUNCHERS, "launcher")
    if jobs < 1:
        raise SettingError(f"--jobs is {jobs}, but must be 1 or more")
    if name == "ray":
        return Ray(jobs)
    if name == "submitit":
        return Submitit(jobs, folder / "submitit")
    return Local(jobs)
