"""Locks on files that die with their holder, however it dies, and say who that is."""

import json
import math
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import filelock

from lightning_opplan.files import write_json
from lightning_opplan.messages import OpplanError

__all__ = ["FileLock", "LockedError"]

_LINGERING: Final = 15.0
"""Seconds for which what a killed holder has forked, such as the workers of a loader, may keep its lock."""


class LockedError(OpplanError, RuntimeError):
    """Another process holds the lock."""


class FileLock:
    """Hold a file for this process, and this search in it, alone. A context manager.

    The lock is one of `filelock`; beside it lies a file that names the holder.

    Args:
        file: A file of its own, whose folder exists.
        timeout: Seconds to wait for another holder to end.

    Raises:
        LockedError: If somebody else holds it; the message names that. Also where files cannot be locked.
    """

    def __init__(self, file: str | os.PathLike[str], *, timeout: float = 0.0) -> None:
        self.file, self.timeout = Path(file), timeout
        self._note = self.file.with_name(self.file.name + ".holder")
        self._lock = filelock.FileLock(self.file, thread_local=False)

    def __enter__(self) -> Self:
        timeout = -1.0 if math.isinf(self.timeout) else self.timeout
        try:
            try:
                self._lock.acquire(timeout=timeout, poll_interval=0.1)
            except filelock.Timeout:
                if not self._has_ended():
                    raise
                self._lock.acquire(timeout=_LINGERING, poll_interval=0.1)
        except filelock.Timeout:
            raise LockedError(
                f"{str(self.file.parent)!r} is in use by {self._holder()}. Wait for it to end, or end it; "
                "two searches cannot share a folder."
            ) from None
        except (OSError, RuntimeError) as error:  # of the system, or of `filelock`
            raise LockedError(
                f"{str(self.file)!r} cannot be locked ({error}). Choose a folder on a file system with locks, such as "
                "a local one or NFS from version 4 on."
            ) from error
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(self._note, me)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note.unlink(missing_ok=True)
        with suppress(OSError):  # where a file that is open cannot be deleted, it stays
            self.file.unlink()
        self._lock.release()

    def _known(self) -> dict[str, str]:
        try:
            known = json.loads(self._note.read_text(encoding="utf-8"))
            return {name: str(known[name]) for name in ("pid", "host", "since")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _holder(self) -> str:
        known = self._known()
        return f"process {known['pid']} on {known['host']}, since {known['since']}" if known else "another process"

    def _has_ended(self) -> bool:
        """Whether the process that took the lock is no more, which is known on the same machine alone."""
        known = self._known()
        if known.get("host") != socket.gethostname():
            return False
        try:
            os.kill(int(known["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
