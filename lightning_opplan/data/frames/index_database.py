"""Indices of video files on disk, so that a file is read through once and not at each start."""

import os
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.data.indexing import FrameIndex
from lightning_opplan.data.video_files import Times

__all__ = ["FileKey", "IndexCache", "cache_folder"]

FileKey = tuple[str, int, int]
"""Path, time of the last change in ns and size in bytes: what tells one state of a file from another."""

_TABLE: Final = "frames_1"  # a new name when what is stored changes
_COLUMNS: Final = (
    "path BLOB PRIMARY KEY, mtime INTEGER, size INTEGER, "
    "num_frames INTEGER, height INTEGER, width INTEGER, times BLOB, starts BLOB"
)
_PATIENCE: Final = 20.0  # seconds for which another process may hold the file
_REPLACE: Final = f"REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def cache_folder() -> Path:
    """Return the folder for what can be made anew: `$OPPLAN_CACHE`, or `lightning_opplan` in the user's cache."""
    own = os.environ.get("OPPLAN_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning_opplan"


class IndexCache:
    """A table of indices in an SQLite file, which several processes may use at once.

    Where the file cannot be written or read, that is said once, and nothing is kept.

    Args:
        file: The file; made at the first write.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._broken = False

    def read(self, keys: list[FileKey]) -> dict[FileKey, FrameIndex]:
        """Return the indices that are known of these files as they are now."""
        found: dict[FileKey, FrameIndex] = {}

        def select(connection: sqlite3.Connection) -> None:
            for key in keys:
                row = connection.execute(f"SELECT * FROM {_TABLE} WHERE path = ?", (os.fsencode(key[0]),)).fetchone()
                if row is not None and row[1:3] == key[1:]:
                    with suppress(ValueError, TypeError, zlib.error):  # a damaged entry is made anew
                        found[key] = _index_of(row)

        if keys and self.file.exists():
            self._try(select)
        return found

    def write(self, indices: dict[FileKey, FrameIndex]) -> None:
        """Keep indices, in place of those of former states of the same files."""
        rows = [
            (
                os.fsencode(key[0]),
                *key[1:],
                index.num_frames,
                index.height,
                index.width,
                _packed(index.times),
                _packed(index.starts),
            )
            for key, index in indices.items()
        ]
        if rows:
            self._try(lambda connection: connection.executemany(_REPLACE, rows))

    def _try(self, action: Callable[[sqlite3.Connection], object]) -> None:
        if self._broken:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_PATIENCE)) as connection, connection:  # one transaction
                connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} ({_COLUMNS})")
                action(connection)
        except (OSError, sqlite3.Error) as error:
            if not self._broken:
                rank_zero_warn(f"Indices of videos are not kept for the next start: {self.file}: {error}.")
            self._broken = True


def _index_of(row: tuple[Any, ...]) -> FrameIndex:
    _, _, _, num_frames, height, width, times, starts = row
    if not (isinstance(num_frames, int) and num_frames > 0 and height > 0 and width > 0):
        raise ValueError
    unpacked = _unpacked(times)
    if unpacked is not None and len(unpacked) != num_frames:
        raise ValueError
    return FrameIndex(num_frames=num_frames, height=height, width=width, times=unpacked, starts=_unpacked(starts))


def _packed(times: Times | None) -> bytes | None:
    # Steps hardly change from frame to frame: they take some bytes where times take some thousand.
    return None if times is None else zlib.compress(np.diff(times, prepend=0).tobytes())


def _unpacked(blob: bytes | None) -> Times | None:
    return None if blob is None else np.cumsum(np.frombuffer(zlib.decompress(blob), np.int64))
