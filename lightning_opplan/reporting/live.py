"""The report of a search that runs: a file that is renewed now and then, and reloads itself where it is looked at."""

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.planning.progress import SearchState, SearchStatus
from lightning_opplan.reporting.fits import Fits
from lightning_opplan.reporting.html import write_report

__all__ = ["LiveReport"]

_LEAST_SECONDS: Final = 3.0  # between two writings
_LARGEST_SHARE: Final = 0.02  # of a search's time that may go into writing


class LiveReport:
    """Renew the report of a search while it runs, and say whether it does. A context manager.

    Writing takes a fiftieth of the time at most. Whatever goes wrong with it is said once, and the search goes on.

    Args:
        dirpath: The folder of the search.
        enabled: Whether this process writes.
        num_workers: Edges at a time.
        max_gpu_hours: Hours, times devices, after which the search starts no further edge.
    """

    def __init__(
        self, dirpath: Path, *, enabled: bool = True, num_workers: int = 1, max_gpu_hours: float | None = None
    ) -> None:
        self.dirpath, self.enabled = dirpath, enabled
        self.num_workers, self.max_gpu_hours = num_workers, max_gpu_hours
        self._fits = Fits()
        self._next, self._interval = 0.0, _LEAST_SECONDS
        self._has_warned = False
        self._is_complete = False

    def __enter__(self) -> Self:
        self.renew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write it for the last time, if `finish` has not."""
        if not self._is_complete:
            self._write("ended", reload_seconds=None)

    def renew(self) -> None:
        """Write it anew, if it is time to."""
        started = time.monotonic()
        if not self.enabled or started < self._next:
            return
        # As often as the page is renewed, by what the last time took.
        self._write("running", reload_seconds=self._interval)
        taken = time.monotonic() - started
        self._interval = max(_LEAST_SECONDS, taken / _LARGEST_SHARE)
        self._next = time.monotonic() + self._interval

    def finish(self, *, is_complete: bool) -> None:
        """The search is over: write it as it stays."""
        self._is_complete = True
        self._write("finished" if is_complete else "ended", reload_seconds=None)

    def _write(self, state: SearchState, *, reload_seconds: float | None) -> None:
        if not self.enabled:
            return

        def write() -> Any:
            status = SearchStatus(
                state=state, num_workers=self.num_workers, max_gpu_hours=self.max_gpu_hours, updated=time.time()
            )
            status.write(self.dirpath)
            write_report(self.dirpath, reload_seconds=reload_seconds, fits=self._fits)

        self.attempt(write, self.dirpath)

    def attempt(self, write: Callable[[], Any], dirpath: Path) -> None:
        """Write some report; no search is to fail over one."""
        try:
            write()
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                rank_zero_warn(
                    f"The report could not be written: {error!r}. The search goes on without it; `opplan report "
                    f"{dirpath}` tries again."
                )
