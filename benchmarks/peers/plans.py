"""Rivals of this package: the paper's search, the same with averaged weights, and the search with a budget."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from lightning_opplan import (
    Axis,
    Ensemble,
    OptimizationPath,
    PathSearchTuner,
    SearchSpace,
    TransitionGraph,
    run_delivery,
)
from lightning_opplan.callbacks import GrowingWeightAveraging
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.promise import promise_of
from lightning_opplan.tuner.edges import training
from lightning_opplan.tuner.edges.recipe import FactoryRecipe
from lightning_opplan.tuner.follow import follow_path
from lightning_opplan.tuner.path_search import SearchResult
from peers.tasks import DECAY, RATE, Task
from peers.training import Found, accuracy, named

THREE_RATES = (0.1, 0.01, 0.001)
TWO_RATES = (0.1, 0.01)
LITTLE = 1e-9  # GPU-hours


class SpentError(Exception):
    """The budget is spent."""


class Meter:
    """Counts the epochs of all trainings, and makes Trainers that end with the budget."""

    def __init__(self, task: Task, budget: float | None = None) -> None:
        self.task, self.budget = task, budget
        self.spent = 0

    def trainer(self, *, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
        limits = {} if self.budget is None else {"max_epochs": max(int(self.budget) - self.spent, 1)}
        # New for every edge: one that is given again is replaced by a copy, which counts for itself.
        counting = LambdaCallback(on_train_epoch_end=self.count)
        return self.task.trainer(callbacks=[counting, *callbacks], **limits, **options)

    def count(self, *_: Any) -> None:
        self.spent += 1

    def check(self, *_: Any) -> None:
        if self.budget is not None and self.spent >= int(self.budget):
            raise SpentError


@dataclass(frozen=True, kw_only=True)
class PlannedPath:
    """A path to follow, by the package's own means."""

    path: OptimizationPath

    @property
    def epochs(self) -> float:
        return self.path.total_epochs

    def scaled(self, factor: float) -> "PlannedPath":
        steps = [replace(step, epochs=max(round(step.epochs * factor), 1)) for step in self.path.steps if step.epochs]
        return PlannedPath(path=replace(self.path, steps=tuple(steps)))

    def replay(self, task: Task, seed: int) -> Mapping[str, Tensor]:
        recipe = FactoryRecipe(model=task.model, data=task.data, trainer=task.trainer)
        with tempfile.TemporaryDirectory() as folder:
            weights = follow_path(
                self.path, recipe, dirpath=folder, setting={"data.part": "all"}, seed=seed, progress=False
            )
            return loaded(weights)

    def __str__(self) -> str:
        return str(self.path)


def loaded(file: Path) -> Mapping[str, Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def tuner(graph: Any, task: Task, meter: Meter, folder: str, seed: int, **options: Any) -> PathSearchTuner:
    return PathSearchTuner(
        graph,
        model=task.model,
        data=task.data,
        trainer=meter.trainer,
        monitor=task.monitor,
        dirpath=folder,
        seed=seed,
        on_edge_end=meter.check,
        num_threads=1,
        progress=False,
        **options,
    )


def found(task: Task, meter: Meter, result: SearchResult, folder: str) -> Found:
    model = loaded(result.weights)
    promise = promise_of(Journal.of(folder).read()[1])
    promised = None if promise is None else (promise.value, promise.expected)
    path = result.path
    if path.total_epochs == 0:  # nothing was better than no training
        path = replace(path, steps=(replace(path.steps[0], epochs=1),))
    value, schedule = accuracy(task, model), PlannedPath(path=path)
    return Found(model=model, value=value, spent=meter.spent, schedule=schedule, promised=promised)


def paper(
    task: Task, budget: float | None, seed: int, *, rates: Sequence[float] = THREE_RATES, **options: Any
) -> Found:
    """The paper's search over the task's axis and falling rates; the best so far once the budget is spent."""
    axes = [
        Axis("axis", task.axis, reversible=True),
        Axis("rate", [{RATE: rate, DECAY: 1e-4} for rate in rates]),
    ]
    graph, meter = TransitionGraph.lattice(axes=axes), Meter(task, budget)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = tuner(graph, task, meter, folder, seed, **options).search()
        except SpentError:
            # Trains nothing more, and returns the best path of what there is.
            result = tuner(graph, task, meter, folder, seed, max_gpu_hours=LITTLE, **options).search()
        return found(task, meter, result, folder)


def paper_fast(task: Task, budget: float, seed: int) -> Found:
    """The paper's search by the preset `fast`."""
    return paper(task, budget, seed, preset="fast")


def paper_wait(task: Task, budget: float, seed: int) -> Found:
    """The paper's search, waiting for late starters."""
    return paper(task, budget, seed, knee={"wait": 50})


def paper_avg2(task: Task, budget: float, seed: int) -> Found:
    """The paper's search with two rates and averaged weights."""
    return paper(task, budget, seed, rates=TWO_RATES, averaging=True)


def configured(task: Task) -> Task:
    """A task whose model and data have the default setting unless they are given another."""
    model, data = (
        partial(make, **named(task.default, name)) for name, make in (("model", task.model), ("data", task.data))
    )
    return replace(task, model=model, data=data)


class FixedAveraging(GrowingWeightAveraging):
    """An average over a fixed number of epochs, whatever the training's length."""

    num_epochs = 2

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.num_updates = self.num_epochs * trainer.num_training_batches

    def _average(self, averages: Any, weights: Any, num_averaged: Any) -> None:
        torch._foreach_lerp_(averages, weights, 1.0 / min(self.num_updates, float(num_averaged) + 1.0))


def planned(
    task: Task, budget: float, seed: int, *, search_share: float, ablation: str = ""
) -> tuple[Found, list[Mapping[str, Tensor]]]:
    """The search with a budget over the whole space, of which a share is for the search; and the delivered models.

    Delivery is the package's own: `run_delivery`, the best single model first; none if all is for the search.

    Args:
        task: The task.
        budget: Epochs, for search and delivery.
        seed: Of the search.
        search_share: What of it is for the search.
        ablation: What to leave out: ``"halving"``, ``"decay"`` (a fixed one), or ``"window"`` (an average over two
            epochs in place of a share of all).
    """
    choices: dict[str, Sequence[Any]] = {RATE: task.rates, DECAY: task.decays}
    if ablation == "decay":
        del choices[DECAY]
    # Nobody says that training should end with one of the axis' settings: without an order they are one more choice.
    choices |= {key: [setting[key] for setting in task.axis] for key in task.axis[0]}
    space = SearchSpace(choices=choices)
    options = {"epochs": budget, "search_share": search_share}
    if ablation == "halving":
        options["eta"] = 1000  # of so many arms one would go on: there is one rung
    averaging = FixedAveraging if ablation == "window" else GrowingWeightAveraging
    meter = Meter(task)
    with tempfile.TemporaryDirectory() as folder, patch.object(training, "GrowingWeightAveraging", averaging):
        made = tuner(space, configured(task), meter, folder, seed, budget=options)
        best = found(task, meter, made.search(), folder)
        if search_share == 1.0:
            return best, []
        (ensemble,) = run_delivery(made, setting={"data.part": "all"}).ensembles.values()
        return best, [loaded(member.weights) for member in Ensemble.load(ensemble).members]
