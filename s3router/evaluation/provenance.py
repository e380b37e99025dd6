"""Where a result comes from: command, commit, library versions, machine.

Only facts that help to repeat a run; no user, host or folder names.
"""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from s3router.runtime.cores import usable_cores

LIBRARIES = (
    "s3router",
    "torch",
    "torchaudio",
    "speechbrain",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "safetensors",
    "soundfile",
    "sentencepiece",
    "jiwer",
    "kaldialign",
)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter.

    Returns
    -------
    dict
        Name to version; what is not installed is left out.
    """
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Return the commit that this package runs from.

    Returns
    -------
    str or None
        The hash, with "-dirty" after it if tracked files were changed; None
        if the package is installed, or git is not there.
    """
    root = Path(__file__).resolve().parents[2]
    # An installed package may lie inside another project's work tree.
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return None
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, object]:
    """Return what the run's speed depends on.

    Returns
    -------
    dict
        `cpu` (model name), `cores` (usable by this process), `gpu` (name, or
        None if there is none or torch was not used), `system`.
    """
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """Return the processor's name, or its architecture if it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    # Not imported for this: on a device there is no torch.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name()


def command_line() -> str:
    """Return the command of this process, as a reader would type it.

    Returns
    -------
    str
        `python script.py ...`, `python -m module ...`, or the name of an
        installed command; quoted for a shell.
    """
    words = list(sys.orig_argv)
    interpreter = Path(words[0]).absolute()
    script = Path(words[1]).absolute() if len(words) > 1 else None
    if script is not None and script.parent == interpreter.parent:
        words = [script.name, *words[2:]]
    else:
        words[0] = "python"
    return shlex.join(words)
