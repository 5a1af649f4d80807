"""What a search would cost: a few batches of every state are trained, and the rest is reckoned."""

import json
import tempfile
import time
from collections.abc import Iterable
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from lightning_opplan.planning.cost import (
    EPOCHS_PER_EDGE,
    CostEstimate,
    StateCost,
    critical_path,
    makespan,
    parallel_width,
)
from lightning_opplan.planning.graph import START, Edge, Setting, TransitionGraph
from lightning_opplan.planning.hand_tuned import HandTuned
from lightning_opplan.planning.search import Outcomes, path_to, winning_edges
from lightning_opplan.tuner.disk import peak_disk
from lightning_opplan.tuner.edge import fit, hushed, quiet
from lightning_opplan.tuner.meter import Meter
from lightning_opplan.tuner.recipe import Recipe

__all__ = ["estimate_cost", "measure_state"]

_WARM_UP: Final = 2
_BATCHES: Final = 5


def estimate_cost(
    graph: TransitionGraph,
    recipe: Recipe,
    *,
    outcomes: Outcomes,
    trainings: tuple[HandTuned, ...] = (),
    max_epochs_per_edge: int | None = None,
    patience: float = 10,
    beam: int = 1,
    share: float = 1.0,
) -> CostEstimate:
    """Measure a few batches of every different setting and estimate what the search costs from here on.

    Args:
        graph: The graph.
        recipe: Makes the experiments.
        outcomes: Edges that have finished, if the search has begun.
        trainings: The hand-tuned grid to compare with.
        max_epochs_per_edge: Epochs of an edge at most.
        patience: Epochs that an edge trains beyond its knee.
        beam: Ways into a state that are followed.
        share: Devices of an edge, as a share of those of the Trainer; on half of them it takes twice as long.
    """
    recipe.check(graph.settings[state] for state in graph.states[1:])
    measured: dict[str, StateCost] = {}

    def cost_of(setting: Setting) -> StateCost:
        key = json.dumps(setting, sort_keys=True, default=str)
        if key not in measured:
            measured[key] = measure_state(recipe, setting)
        return measured[key]

    states = {state: cost_of(graph.settings[state]) for state in graph.states[1:]}
    trained = [outcome.epochs_run for outcome in outcomes.values()]
    limits = [max_epochs_per_edge, *(cost.max_epochs for cost in states.values())]
    epochs = float(min([EPOCHS_PER_EDGE, *(limit for limit in limits if limit is not None)]))
    if trained:
        epochs = sum(trained) / len(trained)
    times = beam  # every edge is run from so many ways into its parent; from the start there is one
    lengths = {edge: epochs * states[edge.child].epoch_seconds for edge in graph.edges}
    edges = tuple(edge for edge in graph.edges if edge not in outcomes)

    def repeats(edge: Edge) -> int:
        return 1 if edge.parent == START else times

    def device_hours(some: Iterable[Edge]) -> float:
        return sum(repeats(e) * lengths[e] * states[e.child].devices for e in some) / 3600

    open_lengths = {edge: lengths[edge] / share if edge in edges else 0.0 for edge in graph.edges}
    critical = critical_path(graph, open_lengths)
    width = min(parallel_width(graph), round(1 / share)) if share < 1 else parallel_width(graph)
    # A path has as many states as the shortest way to an end, its knees `patience` epochs before the edges' ends.
    best = winning_edges(graph, outcomes, partial=True)
    final = next(iter(graph.finals.values()))
    way = path_to(final, best) if final in best else _shortest(graph, final)
    knees = max(epochs - patience, 1.0)
    weights = max(cost.weights for cost in states.values())
    kept = (len(graph.states) - 1) * beam
    grid = sum(
        stage.epochs * cost_of(setting).epoch_seconds * cost_of(setting).devices
        for training in trainings
        for setting, stage in training.stages
    )
    return CostEstimate(
        states=states,
        edges=edges,
        epochs=epochs,
        is_known=bool(trained),
        hours=device_hours(edges),
        whole_hours=device_hours(graph.edges),
        clip_frames=sum(repeats(e) * epochs * states[e.child].clip_frames for e in edges),
        critical_path=critical,
        critical_hours=sum(open_lengths[edge] for edge in critical) / 3600,
        width=width,
        wall_hours={n: makespan(graph, open_lengths, n) / 3600 for n in sorted({1, 2, 4, 8, width}) if n <= width},
        peak_disk=(
            peak_disk(weights, num_kept=kept, num_running=1),
            peak_disk(weights, num_kept=kept, num_running=width),
        ),
        final_hours=sum(knees * states[e.child].epoch_seconds * states[e.child].devices for e in way) / 3600,
        final_epochs=knees * len(way),
        grid_hours=grid / 3600 if trainings else None,
        grid_trainings=len(trainings),
    )


def measure_state(recipe: Recipe, setting: Setting) -> StateCost:
    """Train and validate a few batches under a setting, in a folder that is deleted afterwards."""
    watch, meter = _Stopwatch(), Meter()
    with hushed(), tempfile.TemporaryDirectory() as folder:
        experiment = recipe.build(setting, callbacks=[watch, meter], folder=folder)
        trainer: Any = experiment.trainer
        quiet(trainer)
        trainer.logger = None
        trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, Checkpoint)]
        max_epochs = trainer.fit_loop.max_epochs
        limits = trainer.limit_train_batches, trainer.limit_val_batches
        trainer.limit_train_batches = trainer.limit_val_batches = _WARM_UP + _BATCHES
        trainer.val_check_interval, trainer.check_val_every_n_epoch = 1.0, 1
        trainer.fit_loop.max_epochs, trainer.fit_loop.min_epochs = 1, None
        fit(experiment, None)
        loaders = trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        details = meter.details(trainer)
        state = experiment.model.state_dict().values()
        batches = _num_batches(trainer.train_dataloader, limits[0])
        seen = max(watch.num_train, 1)
        return StateCost(
            train_batches=batches,
            val_batches=sum(_num_batches(loader, limits[1]) for loader in loaders if loader is not None),
            train_seconds=watch.train_seconds,
            val_seconds=watch.val_seconds,
            clip_frames=(details["clip_frames"] or details["num_samples"]) / seen * batches,
            weights=sum(tensor.numel() * tensor.element_size() for tensor in state),
            devices=trainer.world_size,
            max_epochs=max_epochs if max_epochs and max_epochs > 0 else None,
        )


def _num_batches(loader: Any, limit: float | None) -> int:
    """Batches of an epoch, as Lightning counts them under ``limit_…_batches``."""
    try:
        number = len(loader)
    except TypeError:
        raise ValueError(
            "`--dry-run` must know how many batches an epoch has, got a loader without a length. Give its data one."
        ) from None
    if limit is None:
        return number
    return min(number, limit) if isinstance(limit, int) else int(number * limit)


class _Stopwatch(Callback):
    """Time between the ends of batches, the first ones left out."""

    def __init__(self) -> None:
        self._train: list[float] = []
        self._val: list[float] = []

    @property
    def num_train(self) -> int:
        return max(len(self._train) - 1, 0)

    @property
    def train_seconds(self) -> float:
        return _mean_interval(self._train)

    @property
    def val_seconds(self) -> float:
        return _mean_interval(self._val)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train.append(_now())

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *others: Any) -> None:
        self._train.append(_now())

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._val.append(_now())

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *others: Any) -> None:
        self._val.append(_now())


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.perf_counter()


def _mean_interval(times: list[float]) -> float:
    kept = times[_WARM_UP:] if len(times) > _WARM_UP + 1 else times
    return (kept[-1] - kept[0]) / (len(kept) - 1) if len(kept) > 1 else 0.0


def _shortest(graph: TransitionGraph, state: str) -> tuple[Edge, ...]:
    ways: dict[str, tuple[Edge, ...]] = {START: ()}
    for child in graph.states[1:]:
        options = [(*ways[parent], Edge(parent, child)) for parent in graph.parents(child)]
        ways[child] = min(options, key=len)
    return ways[state]
