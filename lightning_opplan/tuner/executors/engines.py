"""Engines for more than one machine, behind the seam of `processes`: Ray, Dask, and SLURM through submitit.

Each needs its package (an extra of the same name) and a folder that is at the same place on all machines.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from importlib import import_module
from typing import Any, TypeVar

from typing_extensions import override

from lightning_opplan.tuner.executors.processes import EdgeFuture

__all__ = ["DaskExecutor", "RayExecutor", "SlurmExecutor"]

T = TypeVar("T")


class RayExecutor(Executor):
    """Run each call as a Ray task.

    Args:
        address: Address of a cluster, ``"auto"`` for the one that this machine belongs to. By default a local one is
            started.
        num_cpus: Processors that a task takes.
        num_gpus: GPUs that a task takes.

    Raises:
        ModuleNotFoundError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
    """

    def __init__(self, address: str | None = None, *, num_cpus: int = 1, num_gpus: int = 0) -> None:
        self._ray = _package("ray", "ray", "Ray")
        self._is_own = not self._ray.is_initialized()
        if self._is_own:
            self._ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        # Tries are counted by the search, which says so.
        self._options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": 0}
        self._running: dict[Future[Any], Any] = {}

    @property
    def num_workers(self) -> int:
        """Tasks that the cluster has room for."""
        available = self._ray.cluster_resources()
        room = [int(available.get("CPU", 0)) // max(self._options["num_cpus"], 1)]
        if self._options["num_gpus"]:
            room.append(int(available.get("GPU", 0)) // self._options["num_gpus"])
        return max(min(room), 1)

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        reference = self._ray.remote(**self._options)(fn).remote(*args, **kwargs)
        future: Future[T] = reference.future()
        self._running[future] = reference
        future.add_done_callback(lambda done: self._running.pop(done, None))
        return future

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; with `cancel_futures` the tasks' processes are killed."""
        if cancel_futures:
            for reference in list(self._running.values()):
                self._ray.cancel(reference, force=True)
        if self._is_own:
            self._ray.shutdown()


class DaskExecutor(Executor):
    """Run each call as a Dask task.

    Args:
        address: Address of a scheduler. By default a local cluster is started.
        num_workers: Workers of a local cluster.

    Raises:
        ModuleNotFoundError: If Dask's `distributed` is not installed.
        OSError: If there is no scheduler at the address.
    """

    def __init__(self, address: str | None = None, *, num_workers: int = 1) -> None:
        distributed = _package("distributed", "dask", "Dask")
        self._cluster = None
        if address is None:
            self._cluster = distributed.LocalCluster(
                n_workers=num_workers, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
            )
        self._client = distributed.Client(self._cluster or address)
        self._executor = self._client.get_executor(pure=False)
        self._running: set[Future[Any]] = set()

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; a task on somebody else's cluster ends by itself, and the next search finds its result."""
        if cancel_futures:
            for future in list(self._running):
                future.cancel()
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class SlurmExecutor:
    """Run each call as a SLURM job.

    Args:
        folder: Where submitit keeps its scripts and logs.
        cluster: ``"slurm"``, or ``"local"`` for processes of this machine. By default SLURM where there is one.
        parameters: Arguments of `submitit.AutoExecutor.update_parameters`.

    Raises:
        ModuleNotFoundError: If submitit is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        cluster: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._executor = _package("submitit", "slurm", "submitit").AutoExecutor(folder=folder, cluster=cluster)
        self._executor.update_parameters(**(parameters or {}))
        self._jobs: list[Any] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> EdgeFuture:
        """Submit a job."""
        job: Any = self._executor.submit(fn, *args)
        self._jobs = [*(other for other in self._jobs if not other.done()), job]
        future: EdgeFuture = job
        return future

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = False) -> None:  # noqa: ARG002 - as in an Executor
        """End; with `cancel_futures` the jobs are cancelled."""
        if cancel_futures:
            for job in self._jobs:
                job.cancel()


def _package(name: str, extra: str, title: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{title} is not installed. Run `pip install 'lightning-opplan[{extra}]'`, or choose another executor."
        ) from None
