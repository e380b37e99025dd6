"""Trains the quickstart's runs through the recipe that users run.

Two runs at a time, one thread each: on small encoders two processes get far
more out of two cores than one process with two threads.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from s3router.errors import NotFoundError, VerificationError

RECIPE = Path("recipes", "commonvoice", "train.py")
_EPOCH = re.compile(r"^epoch: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One training of the quickstart.

    Arguments
    ---------
    language : str
        Folder name in the corpus.
    yaml : str
        The experiment's YAML, relative to the repository.
    method : str
        mask_tuning, full or head_only.
    """

    language: str
    yaml: str
    method: str

    @property
    def name(self) -> str:
        """Return a short name, as `zh-CN mask_tuning`."""
        return f"{self.language} {self.method}"

    def folder(self, root: Path) -> Path:
        """Return the run's output folder below the quickstart's."""
        return root / "runs" / f"{self.language}_{self.method}"

    def finished(self, root: Path) -> bool:
        """Tell whether the run has its result."""
        return (self.folder(root) / "result.json").is_file()


def repository_root() -> Path:
    """Return the checkout that holds the recipes.

    Returns
    -------
    pathlib.Path
        The working folder, or the checkout that the package lies in.

    Raises
    ------
    NotFoundError
        If neither holds the recipes, as with a plain install.
    """
    import s3router

    for root in (Path.cwd(), Path(s3router.__file__).resolve().parents[1]):
        if (root / RECIPE).is_file():
            return root
    raise NotFoundError(
        f"quickstart runs the repository's own recipe, and there is no "
        f"{RECIPE} here; run it from a checkout (`make quickstart`)"
    )


def train_all(
    runs: list[Run],
    root: Path,
    corpus: Path,
    epochs: int,
    parallel: int = 2,
    extra: tuple[str, ...] = (),
) -> None:
    """Train what is not finished yet, with one progress bar a run.

    Arguments
    ---------
    runs : list of Run
        What to train.
    root : pathlib.Path
        The quickstart's folder.
    corpus : pathlib.Path
        Data folder in the Common Voice layout.
    epochs : int
        Epochs of each run.
    parallel : int
        Runs at a time.
    extra : tuple of str
        Further options of the recipe.

    Raises
    ------
    VerificationError
        If a run failed; the text has its last line and names its log.
    """
    waiting = [run for run in runs if not run.finished(root)]
    active: dict[Run, tuple[subprocess.Popen, tqdm]] = {}
    try:
        while waiting or active:
            while waiting and len(active) < parallel:
                run = waiting.pop(0)
                process = _start(run, root, corpus, epochs, extra)
                bar = tqdm(total=epochs, desc=f"{run.name:<18}", unit="epoch")
                active[run] = (process, bar)
            time.sleep(0.5)
            for run, (process, bar) in list(active.items()):
                bar.update(_epochs_done(run, root) - bar.n)
                if process.poll() is not None:
                    bar.close()
                    del active[run]
                    _check(run, root, process.returncode)
    finally:
        for process, bar in active.values():
            process.terminate()
            bar.close()


def _start(
    run: Run, root: Path, corpus: Path, epochs: int, extra: tuple[str, ...]
) -> subprocess.Popen:
    folder = run.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(RECIPE),
        run.yaml,
        f"--data_folder={corpus}",
        "--encoder=tiny",
        f"--method={run.method}",
        f"--output_folder={folder}",
        f"--number_of_epochs={epochs}",
        f"--clip_memory={root / 'clips.jsonl'}",
        "--save_environment=False",
        "--noprogressbar",
        *extra,
    ]
    # Passive waiting: spinning threads of two runs would fight for the cores.
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with open(folder / "output.txt", "ab") as log:
        return subprocess.Popen(
            command,
            cwd=repository_root(),
            env={**os.environ, **threads},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


def _epochs_done(run: Run, root: Path) -> int:
    log = run.folder(root) / "train_log.txt"
    if not log.is_file():
        return 0
    done = _EPOCH.findall(log.read_text(encoding="utf-8"))
    return int(done[-1]) if done else 0


def _check(run: Run, root: Path, code: int) -> None:
    if code == 0:
        return
    log = run.folder(root) / "output.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = lines[-1].strip() if lines else "no output"
    raise VerificationError(
        f"training {run.name} failed (exit {code}): {last} (all of it: {log})"
    )
