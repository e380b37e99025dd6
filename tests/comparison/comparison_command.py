"""The command and what it asked the recipe for."""

from pathlib import Path

from s3router.cli import main


def order(folder: Path) -> list[str]:
    """Return what the recipe was asked, in order of its runs."""
    files = folder.rglob("order.txt")
    return [line for f in files for line in f.read_text().splitlines()]


def run(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])
