"""Lightning's announcements, kept away while a search runs."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["hushed"]


class _Hush:
    """Lightning's loggers at the level of warnings, as long as anybody wants that.

    Edges that train in threads begin and end in any order: the level that one of them finds may be another's doing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._levels: dict[str, int] = {}

    def begin(self) -> None:
        with self._lock:
            if self._num_users == 0:
                for name in ("lightning.pytorch", "lightning.fabric"):
                    logger = logging.getLogger(name)
                    self._levels[name] = logger.level
                    logger.setLevel(max(logger.level, logging.WARNING))
            self._num_users += 1

    def end(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                for name, level in self._levels.items():
                    logging.getLogger(name).setLevel(level)


_HUSH: Final = _Hush()


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Lightning from announcing every Trainer; its warnings still come through."""
    _HUSH.begin()
    try:
        yield
    finally:
        _HUSH.end()
