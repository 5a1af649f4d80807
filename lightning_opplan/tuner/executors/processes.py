"""Where the edges of a search run: the seam has the shape of `concurrent.futures.Executor`.

Whatever has a ``submit(function, *arguments)`` that returns something with ``done()`` and ``result()`` will do: the
classes here, Dask's ``client.get_executor()``, submitit's ``AutoExecutor``. Functions and arguments are picklable.
"""

import functools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol, TypeVar

from typing_extensions import override

from lightning_opplan.messages import OpplanError

__all__ = [
    "EdgeExecutor",
    "EdgeFuture",
    "ProcessExecutor",
    "SerialExecutor",
    "WorkerDiedError",
    "end_isolated",
    "isolated",
    "refuse_unguarded",
]

T = TypeVar("T")
_GRACE: Final = 5.0  # seconds between a request to end and SIGKILL
_PRELOAD: Final = ("__main__", "lightning_opplan.tuner.executors.worker")
_ALSO_IF_USED: Final = "lightning_opplan.cli"


_GUARD: Final = (
    "A script must start its search below `if __name__ == '__main__':` where edges run in processes, as each of them "
    "imports it, too."
)


def refuse_unguarded() -> None:
    """Refuse to search while a process of a search imports the script that started it.

    Raises:
        RuntimeError: If that is what happens.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(_GUARD)


def _nothing() -> None:
    pass


class EdgeFuture(Protocol):
    """What a search needs of a future; that of `concurrent.futures` is one, submitit's job another."""

    def done(self) -> bool:
        """Whether there is a result or an error."""

    def result(self) -> Any:
        """Return the result, or raise the error."""


class EdgeExecutor(Protocol):
    """What a search needs of an executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> EdgeFuture:
        """Run a function elsewhere."""


class WorkerDiedError(OpplanError, RuntimeError):
    """A process ended without a result."""


class SerialExecutor(Executor):
    """Run everything at once in this process; an interruption comes out of `submit`."""

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessExecutor(Executor):
    """Run each call in an operating system process of its own, some at a time.

    Every process leads a process group that ends with it, whatever it has started, and that ends with this process,
    too. They are forked off a server that has imported the package once, so that they start within milliseconds; it
    never uses a GPU. The future of one that dies without a result has a `WorkerDiedError`.

    Args:
        num_workers: Processes at a time.
        devices: For each of them the GPUs that it may see, as ``CUDA_VISIBLE_DEVICES`` has them; by default all.
    """

    def __init__(self, num_workers: int, *, devices: Sequence[Sequence[str]] | None = None) -> None:
        refuse_unguarded()
        if num_workers < 1:
            raise ValueError(f"`num_workers` must be at least 1, got {num_workers!r}.")
        if devices is not None and len(devices) != num_workers:
            raise ValueError(f"`devices` must have one entry for each of {num_workers} workers, got {devices!r}.")
        self.num_workers = num_workers
        self._slots: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        shares: Sequence[Sequence[str] | None] = devices or [None] * num_workers
        for share in shares:
            self._slots.put(share)
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            further = [_ALSO_IF_USED] if _ALSO_IF_USED in sys.modules else []
            self._context.set_forkserver_preload([*_PRELOAD, *further])
        self._lock = threading.Lock()
        self._processes: set[Any] = set()
        self._threads: list[threading.Thread] = []
        self._is_closing = False

    def check(self) -> None:
        """Make sure that a process can be started, which imports the script of this one.

        Raises:
            WorkerDiedError: If it cannot.
        """
        process = self._context.Process(target=_nothing)
        try:
            process.start()
            process.join()
        except (EOFError, OSError):  # the server is gone that should have started it
            failed = True
        else:
            failed = process.exitcode != 0
        if failed:
            raise WorkerDiedError(f"{_GUARD} Or it cannot be imported for another reason; its error is printed above.")

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        call = functools.partial(fn, *args, **kwargs)
        thread = threading.Thread(target=self._supervise, args=(future, call), daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()
        return future

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; with `cancel_futures` the processes are asked to, and killed if they do not within some seconds."""
        if cancel_futures:
            with self._lock:
                self._is_closing = True
                processes = list(self._processes)
            for process in processes:
                _signal_group(process.pid, signal.SIGTERM)
            for process in processes:
                process.join(_GRACE)
                _signal_group(process.pid, signal.SIGKILL)
        if wait:
            for thread in self._threads:
                thread.join()

    def _supervise(self, future: "Future[T]", call: Callable[[], T]) -> None:
        share = self._slots.get()
        try:
            if self._is_closing or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            message, status = self._run_once(call, share)
            if message is None:
                future.set_exception(WorkerDiedError(_death(status)))
            elif message[0]:
                future.set_result(message[1])
            else:
                future.set_exception(message[1])
        except BaseException as error:  # such as no memory for a further process
            future.set_exception(error)
        finally:
            self._slots.put(share)

    def _run_once(
        self, call: Callable[[], T], share: Sequence[str] | None
    ) -> tuple[tuple[bool, Any] | None, int | None]:
        """Run the call in one process; returns what it sent, if it did, and its exit status."""
        # In a job of SLURM's, Lightning would wait for SLURM to start an edge's further ranks.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        if share is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(share)
        receive, send = self._context.Pipe(duplex=False)
        with self._lock:
            if self._is_closing:
                return None, None
            process = self._context.Process(target=_child, args=(send, call, environment))
            process.start()
            self._processes.add(process)
        send.close()
        message = None
        try:
            # Not for the pipe alone: loaders that the process forked hold it open for a while after its death.
            connection.wait([receive, process.sentinel])
            if receive.poll():
                message = receive.recv()
        except (EOFError, OSError):
            pass  # it has died in the middle of its message
        finally:
            receive.close()
            if message is None:
                _signal_group(process.pid, signal.SIGKILL)
            process.join(_GRACE)
            _signal_group(process.pid, signal.SIGKILL)  # what it started and left behind
            process.join()
            with self._lock:
                self._processes.discard(process)
        return message, process.exitcode


_isolating: set[ProcessExecutor] = set()


def isolated(fn: Callable[..., T], /, *args: Any) -> T:
    """Call a function in a fresh process under this one: what workers of other engines run, as they are used again."""
    # Dask's are daemons, which must not have children that they might leave behind; these watch their parent.
    multiprocessing.current_process().daemon = False
    executor = ProcessExecutor(1)
    _isolating.add(executor)
    try:
        return executor.submit(fn, *args).result()
    finally:
        _isolating.discard(executor)


def end_isolated() -> None:
    """End the processes of all calls of `isolated` in this process, as where its threads are the workers."""
    for executor in list(_isolating):
        executor.shutdown(cancel_futures=True)


def _child(send: Connection, call: Callable[[], Any], environment: Mapping[str, str]) -> None:
    """Run in the new process: make a group, watch the parent, call, and send the result or the error."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True, name="watch-parent").start()
    os.environ.clear()
    os.environ.update(environment)
    try:
        message = (True, call())
    except Exception as error:
        message = (False, error)
    send.send(message)
    send.close()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # all of it has ended
        os.killpg(pid, number)


def _death(status: int | None) -> str:
    if status is None:
        return "The search ended before this process could."
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"The process was ended {how} before it had a result."
