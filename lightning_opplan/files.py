"""Files that are written whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import yaml

__all__ = [
    "PARTIAL",
    "dump_yaml",
    "emptied",
    "file_name",
    "local_folder",
    "parse_yaml",
    "remove_partial",
    "replacing",
    "write_json",
    "write_text",
]

_LONGEST: Final = 120  # bytes; file systems hold 255, of which endings need some

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


class _Loader(yaml.SafeLoader):
    """Reads YAML as people write it: ``1e-1`` is a number, as in YAML 1.2."""


class _Dumper(yaml.SafeDumper):
    """Writes what the loader reads back."""


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?|\.\d)[\d_]*[eE][-+]?\d+$"), list("-+0123456789.")
    )


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values.

    Raises:
        yaml.YAMLError: If it is none.
    """
    return yaml.load(text, _Loader)


def dump_yaml(content: Any, **options: Any) -> str:
    """Return plain values as YAML, in their order."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)
    return text


def local_folder(dirpath: str | os.PathLike[str]) -> Path:
    """Return a folder on this machine, or one that is mounted there, by what a user has written.

    Raises:
        ValueError: If it is a URL.
    """
    if "://" in os.fspath(dirpath):
        raise ValueError(
            f"`dirpath` must be a folder, got the URL {os.fspath(dirpath)!r}. A journal needs a file system that can "
            "append and lock; copy the folder elsewhere afterwards."
        )
    return Path(dirpath).expanduser()


def file_name(text: str) -> str:
    """Return a name to read a text by that every file system can hold; equal ones are not excluded."""
    name = re.sub(r"[^\w.+#-]+", ".", text)
    return name.encode()[:_LONGEST].decode(errors="ignore")


def emptied(folder: Path) -> Path:
    """Make a folder, or delete all that is in it; one that is a symbolic link stays one.

    Raises:
        OSError: If something cannot be deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    return folder


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Delete what a kill left half written in a folder."""
    for leftover in Path(folder).glob(f"*{PARTIAL}"):
        leftover.unlink()
