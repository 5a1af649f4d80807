"""Which devices the edges of a search get, and the executor that runs them there."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator

from lightning_opplan.planning.cost import parallel_width
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.executors.engines import DaskExecutor, RayExecutor, SlurmExecutor
from lightning_opplan.tuner.executors.processes import EdgeExecutor, ProcessExecutor, SerialExecutor, end_isolated

__all__ = ["Placement", "place", "runs_here", "share_of_devices", "shares"]


_SLURM_MINUTES: Final = 24 * 60  # submitit's own are five; an edge that is cut off goes on in the next job


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where edges run.

    Attributes:
        executor: Runs them.
        num_workers: Edges at a time.
        devices: Devices of an edge; ``None`` for those of the Trainer.
        accumulate: Times as many batches to accumulate as the Trainer says.
        num_threads: Threads of torch per edge; ``None`` leaves them as they are.
        trainer: A Trainer as edges have it, where one had to be made.
        max_restarts: How often an edge whose process died is started again.
        is_isolated: Whether the executor starts a fresh process for every edge.
        is_own: Whether the executor is to be ended with the search.
        sentence: What to say of it.
    """

    executor: EdgeExecutor
    num_workers: int = 1
    devices: int | None = None
    accumulate: int = 1
    num_threads: int | None = None
    trainer: Trainer | None = None
    max_restarts: int = 3
    is_isolated: bool = False
    is_own: bool = True
    sentence: str = ""

    @property
    def is_here(self) -> bool:
        """Whether edges run in this process."""
        return isinstance(self.executor, SerialExecutor)

    def shutdown(self, *, cancel: bool) -> None:
        """End the executor; one that was given stays for its owner."""
        end = getattr(self.executor, "shutdown", None)
        if self.is_own and end is not None:
            end(wait=True, cancel_futures=cancel)
        elif cancel:
            end_isolated()


def runs_here(executor: ExecutorOptions | EdgeExecutor) -> bool:
    """Whether edges run in this process, or in the ranks of its group."""
    return isinstance(executor, SerialExecutor) or (
        isinstance(executor, ExecutorOptions) and executor.name == "in_process"
    )


def place(
    executor: ExecutorOptions | EdgeExecutor, recipe: Recipe, search: Search | Halving, folder: Path
) -> Placement:
    """Make the executor of a search and share the devices out.

    Raises:
        ValueError: If the devices cannot be shared so that every update sees as many samples as before.
        MisconfigurationException: If this process is one of several that were started together.
        ModuleNotFoundError: If the executor's package is not installed.
    """
    if runs_here(executor):
        return Placement(executor=SerialExecutor())
    if int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1:
        raise MisconfigurationException(
            "`executor` must be 'in_process' where several processes were started together (torchrun, srun), as all "
            "of them would search. Start one process, or leave the executor out."
        )
    width = parallel_width(search)
    if not isinstance(executor, ExecutorOptions):
        workers = int(getattr(executor, "num_workers", 0) or getattr(executor, "_max_workers", 0) or width)
        return Placement(
            executor=executor, num_workers=workers, is_isolated=isinstance(executor, ProcessExecutor), is_own=False,
            sentence=f"Edges run by {type(executor).__name__}, up to {workers} at a time.",
        )  # fmt: skip
    trainer = recipe.build_trainer(str(folder))
    total, chosen = trainer.num_devices, _devices_per_edge(executor, trainer, width)
    on_gpus = isinstance(trainer.accelerator, CUDAAccelerator)
    accumulate = total // chosen if on_gpus or executor.devices_per_edge is not None else 1
    cores = len(os.sched_getaffinity(0))
    room = total // chosen if on_gpus else max(cores // chosen, 1)
    # A worker more than can ever be busy would only hold memory.
    workers = min(executor.num_workers or room, width)
    if executor.name == "processes" and on_gpus:
        workers = min(workers, room)
    made = _engine(executor, workers, _gpus(trainer) if on_gpus else None, chosen, folder)
    if executor.name != "processes":  # as many as the graph allows, if the engine does not say
        workers = min(executor.num_workers or getattr(made, "num_workers", width), width)
    sentence = f"Edges run by {executor.name}, up to {workers} at a time."
    if on_gpus or executor.devices_per_edge is not None:
        sentence += f" Each has {chosen} of {total} devices" + (
            f" and accumulates {accumulate} times as many batches, so that an update sees as many samples as on all."
            if accumulate > 1
            else "."
        )
    return Placement(
        executor=made,
        trainer=trainer,
        num_workers=workers,
        # By number: those of a worker are counted from 0 again.
        devices=chosen if on_gpus or executor.devices_per_edge is not None else None,
        accumulate=accumulate,
        num_threads=None if on_gpus else max(cores // (workers * chosen), 1),
        max_restarts=executor.max_restarts,
        is_isolated=executor.name == "processes",
        sentence=sentence,
    )


def share_of_devices(options: ExecutorOptions | EdgeExecutor, recipe: Recipe, search: Search | Halving) -> float:
    """Return the devices that an edge will get, as a share of those of the Trainer."""
    if runs_here(options) or not isinstance(options, ExecutorOptions):
        return 1.0
    trainer = recipe.build_trainer(".")
    return _devices_per_edge(options, trainer, parallel_width(search)) / trainer.num_devices


def shares(total: int, wanted: int | None, *, width: int, are_scarce: bool) -> int:
    """Return the devices of an edge: half of all where two edges can run at once, or as many as are wanted.

    Args:
        total: Devices that the Trainer was configured for.
        wanted: Devices per edge, if the user says.
        width: Edges that can run at once.
        are_scarce: Whether edges that run at once need devices of their own; processes on a CPU do not.

    Raises:
        ValueError: If the global batch could not be kept by accumulation.
    """
    if wanted is None:
        return total // 2 if are_scarce and width > 1 and total % 2 == 0 else total
    if wanted < 1 or total % wanted:
        valid = ", ".join(str(number) for number in range(1, total + 1) if total % number == 0)
        raise ValueError(
            f"`devices_per_edge` must divide the {total} devices of the Trainer, or gradients could not be "
            f"accumulated to the same number of samples, got {wanted!r}. Valid choices: {valid}."
        )
    return wanted


def _devices_per_edge(options: ExecutorOptions, trainer: Trainer, width: int) -> int:
    on_gpus = isinstance(trainer.accelerator, CUDAAccelerator)
    if options.name == "dask" and on_gpus and options.devices_per_edge is None:
        raise ValueError(
            "`executor.devices_per_edge` must be given for Dask with GPUs, as Dask does not share them out. Start its "
            "workers with so many visible GPUs each (dask-cuda does), or choose 'processes' or 'ray'."
        )
    return shares(trainer.num_devices, options.devices_per_edge, width=width, are_scarce=on_gpus)


def _engine(
    options: ExecutorOptions, workers: int, gpus: Sequence[str] | None, per_edge: int, folder: Path
) -> EdgeExecutor:
    """Make the executor; `gpus` are those of this machine, as ``CUDA_VISIBLE_DEVICES`` names them."""
    num_gpus = 0 if gpus is None else per_edge
    if options.name == "processes":
        groups = None
        if gpus is not None:
            groups = [gpus[start * per_edge : (start + 1) * per_edge] for start in range(workers)]
        return ProcessExecutor(workers, devices=groups)
    if options.name == "ray":
        return RayExecutor(options.address, num_cpus=options.cpus_per_edge, num_gpus=num_gpus)
    if options.name == "dask":
        return DaskExecutor(options.address, num_workers=workers)
    parameters = {
        "gpus_per_node": num_gpus,
        "cpus_per_task": options.cpus_per_edge,
        "timeout_min": _SLURM_MINUTES,
        **options.options,
    }
    return SlurmExecutor(folder / "slurm", cluster=options.address, parameters=parameters)


def _gpus(trainer: Trainer) -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else None
    return [names[index] if names else str(index) for index in trainer.device_ids]
