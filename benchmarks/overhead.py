"""What the search itself takes: beside a bare Trainer.fit, in memory over many edges, and beside the scheduling bound.

python benchmarks/overhead.py                # seconds per edge beyond a bare fit, and memory over 200 edges
python benchmarks/overhead.py --callback 400 # validations with KneeStopping, and with Lightning's own callbacks
python benchmarks/overhead.py --sleep 4      # wall time of sleeping edges on 1, 2, 4 and 8 workers
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import Axis, KneeStopping, PathSearchTuner, TransitionGraph
from lightning_opplan.planning.cost import schedule_bound
from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.edges.hush import hushed

EPOCHS = 4


class Model(LightningModule):
    """A small network that also sleeps for a given time per epoch."""

    def __init__(self, seconds: float = 0.0, clip: int = 0, rate: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(16, 16)
        self.seconds = seconds

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.layer(batch[0]).pow(2).mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Data(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.ones(8, 16)), 8)

    val_dataloader = train_dataloader


def chain(length: int) -> TransitionGraph:
    names = [f"s{number}" for number in range(length)]
    return TransitionGraph({name: {} for name in names}, list(zip(["start", *names], names, strict=False)))


def tuner(folder: str, graph: TransitionGraph, **options: Any) -> PathSearchTuner:
    trainer = partial(Trainer, accelerator="cpu", logger=False, max_epochs=EPOCHS)
    settings = {"model": Model, "data": Data, "trainer": trainer, "monitor": "val/loss", "mode": "min"}
    return PathSearchTuner(graph, **{**settings, "dirpath": folder, "progress": False, "num_threads": 1, **options})


def bare_fit(folder: Path) -> float:
    """Seconds of what an edge does: y₀, the epochs with a checkpoint each, by hand."""
    started = time.monotonic()
    stopping = KneeStopping("val/loss", mode="min", dirpath=str(folder / "checkpoints"))
    trainer = Trainer(
        accelerator="cpu", logger=False, max_epochs=EPOCHS, callbacks=[stopping], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    model, data = Model(), Data()
    trainer.validate(model, data, verbose=False)
    trainer.fit(model, data)
    return time.monotonic() - started


def print_overhead(num_edges: int) -> None:
    """Edges of a chain, each beside a bare fit; and the memory of the process meanwhile."""
    torch.set_num_threads(1)
    memory: list[float] = []
    times: list[float] = []
    last = time.monotonic()

    with tempfile.TemporaryDirectory() as place, hushed():
        fits = [bare_fit(Path(place, f"bare-{number}")) for number in range(30)]

        def listen(*_: Any) -> None:
            nonlocal last
            now = time.monotonic()
            times.append(now - last)
            last = now
            memory.append(psutil.Process().memory_info().rss / 2**20)

        tuner(place + "/plan", chain(num_edges), on_edge_end=listen).search()
    per_edge, per_fit = statistics.median(times[5:]), statistics.median(fits[5:])
    print(
        f"bare fit of {EPOCHS} epochs: {per_fit:.3f} s; edge: {per_edge:.3f} s; overhead: {per_edge - per_fit:.3f} s"
    )
    quarter = num_edges // 4
    first, end = statistics.mean(memory[quarter : 2 * quarter]), statistics.mean(memory[-quarter:])
    print(f"memory over {num_edges} edges: {first:.0f} MiB in the second quarter, {end:.0f} MiB in the last")


def print_callback(num_validations: int, repetitions: int = 5) -> None:
    """Fits with `KneeStopping` beside `EarlyStopping` with `ModelCheckpoint`, in turns, on a noisy rising curve.

    `KneeStopping` writes a checkpoint per validation, as `ModelCheckpoint` does with `save_last`.
    """
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    time_ = torch.arange(1, num_validations + 1)
    values = (
        1 - torch.exp(-time_ / (num_validations / 3)) + 0.01 * torch.randn(num_validations, generator=draw)
    ).tolist()

    class Scripted(Model):
        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("val/acc", values[self.trainer.current_epoch])

    makes: dict[str, Callable[[str], list[Callback]]] = {
        "EarlyStopping, ModelCheckpoint": lambda folder: [
            EarlyStopping("val/acc", mode="max", patience=num_validations),
            ModelCheckpoint(folder, monitor="val/acc", mode="max"),
        ],
        "the same with save_last": lambda folder: [
            EarlyStopping("val/acc", mode="max", patience=num_validations),
            ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True),
        ],
        "KneeStopping": lambda folder: [KneeStopping("val/acc", mode="max", patience=num_validations, dirpath=folder)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in makes}
    with tempfile.TemporaryDirectory() as place, hushed():
        for number in range(repetitions + 1):
            for name, make in makes.items():
                trainer = Trainer(
                    accelerator="cpu", logger=False, max_epochs=num_validations, enable_progress_bar=False,
                    callbacks=make(f"{place}/{name}/{number}"), enable_model_summary=False, num_sanity_val_steps=0,
                )  # fmt: skip
                started = time.monotonic()
                trainer.fit(Scripted(), Data())
                seconds[name].append(time.monotonic() - started)
    medians = [statistics.median(times[1:]) for times in seconds.values()]
    print(f"{num_validations} validations, median of {repetitions}")
    for name, median in zip(seconds, medians, strict=True):
        print(f"{name}: {median:.2f} s; KneeStopping to it: {medians[-1] / median:.2f}")


def print_sleeping(seconds: float, counts: list[int]) -> None:
    """Wall time of whole searches over equal edges, beside the bound by the length of one edge."""
    branches = {"a": {"trainer.log_every_n_steps": 1}, "b": {"trainer.log_every_n_steps": 2}}
    table = Table(title=f"Edges that sleep for {seconds:g} s; wall time / bound = ratio")
    for name in ("graph", *(f"{workers} workers" for workers in counts)):
        table.add_column(name)
    for extended in (False, True):
        axes = [
            Axis("clip", [{"model.clip": number} for number in range(3)], reversible=extended),
            Axis("rate", [{"model.rate": number} for number in range(3)]),
        ]
        graph = TransitionGraph.lattice(axes=axes, branches=branches)
        cells = []
        for workers in counts:
            options = ExecutorOptions(name="processes", num_workers=workers)
            model = partial(Model, seconds=seconds / EPOCHS)
            with tempfile.TemporaryDirectory() as place:
                started = time.monotonic()
                tuner(place, graph, model=model, executor=options, start_value=1.0).search()
                wall = time.monotonic() - started
            bound = schedule_bound(Search(graph), dict.fromkeys(graph.edges, seconds), workers)
            cells.append(f"{wall:.1f} / {bound:.0f} = {wall / bound:.3f}")
            print("extended" if extended else "basic", workers, cells[-1], flush=True)
        table.add_row("extended" if extended else "basic", *cells)
    Console(width=130).print(table)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=200)
    parser.add_argument("--callback", type=int, help="Validations.")
    parser.add_argument("--sleep", type=float, help="Seconds that an edge sleeps.")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    options = parser.parse_args()
    if options.callback:
        print_callback(options.callback)
    elif options.sleep is None:
        print_overhead(options.edges)
    else:
        print_sleeping(options.sleep, options.workers)


if __name__ == "__main__":
    main()
