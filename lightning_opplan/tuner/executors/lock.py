"""Locks on files that die with their holder, however it dies."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["FileLock", "LockedError"]


class LockedError(RuntimeError):
    """Another process holds the lock."""


class FileLock:
    """Hold a file for this process alone. A context manager.

    It is a POSIX record lock: the system lets go of it when the process ends, and processes forked off do not inherit
        it.
    The file names its holder, and is removed in the end.

    Args:
        file: A file of its own, whose folder exists.
        timeout: Seconds to wait for another holder to end.

    Raises:
        LockedError: If another process holds it; the message names that.
    """

    def __init__(self, file: str | os.PathLike[str], *, timeout: float = 0.0) -> None:
        self.file, self.timeout = Path(file), timeout
        self._descriptor = -1

    def __enter__(self) -> Self:
        deadline = time.monotonic() + self.timeout
        while not self._try():
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"{str(self.file.parent)!r} is in use by {self._holder()}. Wait for it to end, or end it; "
                    "two searches cannot share a folder."
                )
            time.sleep(0.1)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(me).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.unlink(missing_ok=True)  # while it is held: whoever waits for it sees that it is gone
        os.close(self._descriptor)

    def _try(self) -> bool:
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_ino == os.stat(self.file).st_ino:
                self._descriptor = descriptor
                return True
        except (BlockingIOError, PermissionError, FileNotFoundError):
            pass
        os.close(descriptor)
        return False

    def _holder(self) -> str:
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
            return f"process {known['pid']} on {known['host']}, since {known['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
