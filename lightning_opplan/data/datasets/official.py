"""What the readers of official lists share."""

from collections.abc import Iterator
from pathlib import Path

from lightning_opplan.data.texts import read_text

__all__ = ["list_file", "read_lines"]


def list_file(folder: Path, *names: str) -> Path:
    """Return the first of these files that a folder has.

    Raises:
        FileNotFoundError: If it has none of them.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"`annotations` must be the folder of the lists, got {folder}: no {names[0]} there.")


def read_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that are not empty, without space around, after the place of each for an error."""
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if line.strip():
            yield f"{file}, line {number}", line.strip()
