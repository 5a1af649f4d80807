"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

__all__ = ["PARTIAL", "remove_partial", "replacing", "write_json", "write_text"]

PARTIAL: Final = ".tmp"
"""Ending of a file that is being written."""


@contextmanager
def replacing(file: str | os.PathLike[str], *, sync: bool = True, shared: bool = False) -> Iterator[Path]:
    """Give a name to write under, in the same folder; at the end of the block it becomes `file`.

    Args:
        file: The file to make or replace; its folder is made, too.
        sync: Be sure that it is on the disk before it takes its name, which outlasts a power failure. A kill is
            survived without.
        shared: Several processes may write it at once; each then has a name of its own to write under.
    """
    file = Path(file)
    partial = file.with_name(f"{file.name}.{uuid4().hex}{PARTIAL}" if shared else file.name + PARTIAL)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if sync:
            with partial.open("rb+") as stream:
                os.fsync(stream.fileno())
        os.replace(partial, file)
    except BaseException:
        if partial.is_file():
            partial.unlink()
        raise


def write_text(file: str | os.PathLike[str], text: str, *, sync: bool = True) -> None:
    """Write a text as UTF-8, see `replacing`."""
    with replacing(file, sync=sync) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(file: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write JSON, see `replacing`."""
    write_text(file, json.dumps(content, allow_nan=False))


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Delete what a kill left half written in a folder."""
    for leftover in Path(folder).glob(f"*{PARTIAL}"):
        leftover.unlink()
