"""Who runs the commands: this machine, ray, or a cluster through submitit.

A launcher takes commands and yields each with its exit status as it ends.
Must not know what is compared.
"""

import os
import signal
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from s3router.errors import MissingDependencyError, SettingError, one_of
from s3router.runtime.cores import usable_cores

Command = Sequence[str]


#: Exit status of a job that its engine lost.
LOST = -1


def run_command(
    command: Command,
    log: str,
    threads: int | None,
    folder: str,
    running: list[subprocess.Popen] | None = None,
) -> int:
    """Run one command, its output into a file; return its exit status.

    Arguments
    ---------
    command : sequence of str
        Program and arguments.
    log : str
        The file; written anew.
    threads : int, optional
        For numeric libraries; None leaves it to them.
    folder : str
        Where to run it: paths in it are relative.
    running : list of subprocess.Popen, optional
        Its process is added, for who may want to end it.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    output = Path(folder, log)
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        output.open("wb") as file,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
        ) as process,
    ):
        if running is not None:
            running.append(process)
        return process.wait()


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is as Ctrl-C here, so that nothing is left running alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        self._threads = None if jobs == 1 else max(1, usable_cores() // jobs)

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        running: list[subprocess.Popen] = []
        common = self._threads, os.getcwd(), running
        with terminated_as_interrupted(), ThreadPoolExecutor(self.jobs) as pool:
            places = {
                pool.submit(run_command, command, log, *common): place
                for place, (command, log) in enumerate(
                    zip(commands, logs, strict=True)
                )
            }
            try:
                for future in as_completed(places):
                    yield places[future], future.result()
            finally:
                # Interrupted: what has not begun never does, and what runs
                # ends; it goes on from its last checkpoint another time.
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.terminate()


class Ray(Launcher):
    """Tasks of a ray cluster, or of this machine where there is none.

    Arguments
    ---------
    jobs : int
        Tasks at a time on the largest machine, which share its cores.
    options : mapping
        Of its tasks, as `{"num_gpus": 1}`.

    Raises
    ------
    MissingDependencyError
        If ray is not installed.
    """

    def __init__(self, jobs: int, options: Mapping[str, object]):
        try:
            import ray
        except ImportError:
            raise MissingDependencyError(
                "--launcher ray needs ray: pip install 's3router[cluster]'"
            ) from None
        self._ray = ray
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        cores = max(n["Resources"].get("CPU", 1) for n in ray.nodes())
        self._threads = max(1, int(cores) // jobs)
        self._options = {"num_cpus": self._threads, **options}

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        task = self._ray.remote(**self._options)(run_command)
        places = {
            task.remote(list(command), log, self._threads, os.getcwd()): place
            for place, (command, log) in enumerate(
                zip(commands, logs, strict=True)
            )
        }
        waiting = list(places)
        while waiting:
            (ended,), waiting = self._ray.wait(waiting)
            try:
                status = self._ray.get(ended)
            except self._ray.exceptions.RayError:
                status = LOST
            yield places[ended], status


class Submitit(Launcher):
    """Jobs of a Slurm cluster, or of this machine where there is none.

    Arguments
    ---------
    jobs : int
        Jobs at a time.
    folder : pathlib.Path
        For submitit's own files, seen by all machines.
    parameters : mapping
        Of submitit's executor, as `{"timeout_min": 240, "gpus_per_node": 1}`.

    Raises
    ------
    MissingDependencyError
        If submitit is not installed.
    """

    def __init__(
        self, jobs: int, folder: Path, parameters: Mapping[str, object]
    ):
        try:
            import submitit
        except ImportError:
            raise MissingDependencyError(
                "--launcher submitit needs submitit: "
                "pip install 's3router[cluster]'"
            ) from None
        self._submitit = submitit
        self._jobs = jobs
        self._executor = submitit.AutoExecutor(folder=str(folder))
        self._executor.update_parameters(
            **{"timeout_min": 24 * 60, **parameters}
        )

    def run(
        self, commands: Sequence[Command], logs: Sequence[str]
    ) -> Iterator[tuple[int, int]]:
        """See `Launcher.run`."""
        # In waves: without a cluster, submitit starts all that it is given.
        for start in range(0, len(commands), self._jobs):
            places = range(start, min(start + self._jobs, len(commands)))
            jobs = {
                place: self._executor.submit(
                    run_command,
                    list(commands[place]),
                    logs[place],
                    None,
                    os.getcwd(),
                )
                for place in places
            }
            for place, job in jobs.items():
                try:
                    yield place, job.result()
                except self._submitit.core.utils.UncompletedJobError:
                    yield place, LOST
                except self._submitit.core.utils.FailedJobError:
                    yield place, LOST


LAUNCHERS = ("local", "ray", "submitit")


def build_launcher(
    name: str, jobs: int, folder: Path, engine: Mapping[str, object]
) -> Launcher:
    """Return a launcher by its name.

    Arguments
    ---------
    name : str
        local, ray or submitit.
    jobs : int
        Runs at a time.
    folder : pathlib.Path
        Of the comparison.
    engine : mapping
        Settings of ray's tasks or of submitit's executor.

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
        return Ray(jobs, engine)
    if name == "submitit":
        return Submitit(jobs, folder / "submitit", engine)
    if engine:
        raise SettingError("--engine is for ray and submitit")
    return Local(jobs)
