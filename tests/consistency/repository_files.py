"""Which files there are, for tests that read all of them.

git knows what belongs to the repository; where there is no git (an sdist),
what a working folder gathers is left out by name.
"""

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GATHERED = {
    ".git",
    ".venv",
    "build",
    "dist",
    "quickstart",
    "runs",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
}


def repository_files(*suffixes: str) -> list[Path]:
    """Return the repository's files with one of these endings, sorted."""
    done = subprocess.run(
        [
            "git",
            "-C",
            str(ROOT),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        names = [name for name in done.stdout.split("\0") if name]
    else:
        names = [
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if not GATHERED & set(path.relative_to(ROOT).parts[:-1])
        ]
    paths = [ROOT / name for name in names if name.endswith(suffixes)]
    return sorted(path for path in paths if path.is_file())


def package_files() -> list[Path]:
    """Return the package's Python files; there are always some."""
    files = [
        path
        for path in repository_files(".py")
        if path.is_relative_to(ROOT / "s3router")
    ]
    assert len(files) > 20, f"only {len(files)} files of the package seen"
    return files


def name_of(path: Path) -> str:
    """Return a path as seen from the root."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    """Return a Python file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
