"""Give up on work that makes no progress: a decoder that hangs cannot be interrupted, only left behind."""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

__all__ = ["StalledError", "progress", "run"]

T = TypeVar("T")
_Results: TypeAlias = "queue.SimpleQueue[tuple[Any, BaseException | None]]"


class StalledError(RuntimeError):
    """Work has made no progress for too long."""


class _Counter:
    def __init__(self) -> None:
        self.steps = 0


class _Helper:
    """A thread that does one task after the other, until nobody holds this object any more."""

    def __init__(self) -> None:
        self.counter = _Counter()
        self.tasks: queue.SimpleQueue[tuple[Callable[[], Any], _Results] | None] = queue.SimpleQueue()
        # A daemon, so that one that hangs does not hold up the end of the process.
        self.thread = threading.Thread(target=_work, args=(self.tasks, self.counter), name="decoding", daemon=True)
        self.thread.start()

    def __del__(self) -> None:
        self.tasks.put(None)


class _Local(threading.local):
    helper: _Helper | None = None  # works for this thread
    counter: _Counter | None = None  # of the helper that this thread is


_HERE = _Local()


def _work(tasks: "queue.SimpleQueue[tuple[Callable[[], Any], _Results] | None]", counter: _Counter) -> None:
    _HERE.counter = counter
    while (job := tasks.get()) is not None:
        task, results = job
        try:
            results.put((task(), None))
        except BaseException as error:  # handed to whoever waits for it
            results.put((None, error))
        del job, task, results


def progress() -> None:
    """Say that the work goes on, from within it."""
    if _HERE.counter is not None:
        _HERE.counter.steps += 1


def run(task: Callable[[], T], *, seconds: float) -> T:
    """Run a task in another thread and wait for it as long as it makes progress.

    Args:
        task: Calls `progress` now and then.
        seconds: How long it may go without.

    Raises:
        StalledError: If it does; its thread is left behind.
    """
    helper = _HERE.helper
    if helper is None or not helper.thread.is_alive():  # a forked process has the object, but not the thread
        helper = _HERE.helper = _Helper()
    # A queue of its own for each task: who is interrupted here leaves a result behind that must not be the next one's.
    results: _Results = queue.SimpleQueue()
    helper.tasks.put((task, results))
    while True:
        steps = helper.counter.steps
        try:
            result, error = results.get(timeout=seconds)
        except queue.Empty:
            if helper.counter.steps == steps:
                _HERE.helper = None
                raise StalledError(f"no progress for {seconds:g} s") from None
            continue
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]
