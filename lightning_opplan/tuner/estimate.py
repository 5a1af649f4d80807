"""What a search would cost: a few batches of every state are trained, and the rest is reckoned."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from lightning_opplan._lightning import limit_epochs, remove_callbacks
from lightning_opplan.planning.cost import (
    EPOCHS_PER_EDGE,
    CostEstimate,
    StateCost,
    critical_path,
    makespan,
    parallel_width,
)
from lightning_opplan.planning.graph import START, Edge, Setting, TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.hand_tuned import HandTuned
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.path import plain_setting
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.space import is_rate
from lightning_opplan.tuner.disk import peak_disk
from lightning_opplan.tuner.edges.freshness import ensure_fresh
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.meter import Meter
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.training import fit, quiet
from lightning_opplan.tuner.executors.placement import share_of_devices
from lightning_opplan.tuner.spec import Planned, SearchSpec

__all__ = ["estimate_cost", "measure_state"]

_WARM_UP: Final = 2
_BATCHES: Final = 5


def estimate_cost(tuner: Planned, *, trainings: Sequence[HandTuned] = ()) -> CostEstimate:
    """Measure a few batches of every different setting and estimate what a search costs from here on.

    Args:
        tuner: The search; what has finished in its folder counts.
        trainings: The hand-tuned grid to compare with.
    """
    spec = tuner.spec
    graph, options = spec.graph, spec.options
    spec.recipe.check(plain_setting(graph.settings[state]) for state in graph.states[1:])
    search = _standing(spec)
    measured: dict[str, StateCost] = {}

    def cost_of(setting: Setting) -> StateCost:
        key = json.dumps(setting, sort_keys=True, default=str)
        if key not in measured:
            measured[key] = measure_state(spec.recipe, plain_setting(setting))
        return measured[key]

    states = {state: cost_of(graph.settings[state]) for state in graph.states[1:]}
    trained = [outcome.epochs_run for outcome in search.outcomes.values()]
    limits = [options.max_epochs_per_edge, *(cost.max_epochs for cost in states.values())]
    epochs = float(min([EPOCHS_PER_EDGE, *(limit for limit in limits if limit is not None)]))
    if trained:
        epochs = sum(trained) / len(trained)

    def epochs_left(edge: Edge) -> float:
        if edge in search.outcomes:
            return 0.0
        return max(epochs - (search.paused[edge].epochs_run if edge in search.paused else 0.0), 0.0)

    def device_hours(some: Mapping[Edge, float]) -> float:
        costs = ((states[edge.child], number) for edge, number in some.items())
        return sum(number * cost.epoch_seconds * cost.devices for cost, number in costs) / 3600

    if isinstance(search, Halving):
        left = _imagined(search, states)
        epochs = sum(left.values()) / max(sum(number > 0 for number in left.values()), 1)
    else:
        left = {edge: epochs_left(edge) for edge in search.edges}
    share = share_of_devices(spec.executor, spec.recipe, search)
    lengths = {edge: number * states[edge.child].epoch_seconds / share for edge, number in left.items()}
    critical = critical_path(search, lengths)
    width = parallel_width(search) if share == 1 else min(parallel_width(search), round(1 / share))
    # A path has as many states as the shortest way to an end, its knees `patience` epochs before the edges' ends.
    final = next(iter(graph.finals.values()))
    way = search.way(final) if final in search.leaders else _shortest(graph, final)
    knees = max(epochs - options.knee.patience, 1.0)
    weights = max(cost.weights for cost in states.values())
    grid = sum(
        stage.epochs * cost_of(setting).epoch_seconds * cost_of(setting).devices
        for training in trainings
        for setting, stage in training.stages
    )
    return CostEstimate(
        states=states,
        edges=tuple(edge for edge in search.edges if edge not in search.outcomes),
        num_edges=len(search.edges),
        epochs=epochs,
        is_known=bool(trained),
        hours=device_hours(left),
        whole_hours=device_hours(left if isinstance(search, Halving) else dict.fromkeys(search.edges, epochs)),
        clip_frames=sum(number * states[edge.child].clip_frames for edge, number in left.items()),
        critical_path=critical,
        critical_hours=sum(lengths[edge] for edge in critical) / 3600,
        width=width,
        wall_hours={n: makespan(search, lengths, n) / 3600 for n in sorted({1, 2, 4, 8, width}) if n <= width},
        peak_disk=(peak_disk(weights, search, num_running=1), peak_disk(weights, search, num_running=width)),
        final_hours=device_hours(dict.fromkeys(way, knees)),
        final_epochs=knees * len(way),
        grid_hours=grid / 3600 if trainings else None,
        grid_trainings=len(trainings),
        advice=_advice(spec),
    )


def _advice(spec: SearchSpec) -> str | None:
    """Propose averaged weights in place of the lowest rates of the paper's search."""
    settings = [spec.graph.settings[state] for state in spec.graph.states[1:]]
    rates = {value for setting in settings for key, value in setting.items() if is_rate(key)}
    if spec.arms is not None or spec.options.averaging or len(rates) < 3:
        return None
    return (
        f"averaged weights (plan.averaging: true) with two of the {len(rates)} rates: less than half of the epochs "
        "for as good a result in most measurements; or a budget (docs/budget.md)"
    )


def _imagined(search: Halving, states: Mapping[str, StateCost]) -> dict[Edge, float]:
    """The epochs that every arm would still get, if chance decided which are the best."""
    begun = {outcome.edge: outcome.epochs_run for outcome in search.known}
    draw = np.random.default_rng(0)
    while (work := search.ask()) is not None:
        assert work.until is not None
        cost, value = states[work.edge.child], float(draw.normal())
        search.tell(
            EdgeOutcome(
                edge=work.edge,
                value=value,
                knee_epoch=work.until,
                epochs_run=work.until,
                curve=((work.until, value),),
                seconds=work.until * cost.epoch_seconds,
                devices=cost.devices,
                clip_frames=round(work.until * cost.clip_frames),
                is_paused=True,
                since=work.since,
            )
        )
    trained = {outcome.edge: outcome.epochs_run for outcome in search.known}
    return {edge: trained.get(edge, 0.0) - begun.get(edge, 0.0) for edge in search.edges}


def _standing(spec: SearchSpec) -> Search | Halving:
    """The search in a folder, if it is of the same graph."""
    journal, fresh = Journal.of(spec.dirpath), spec.record.search()
    if journal.file.is_file():
        plan, known = journal.read()
        if plan.graph.edges == spec.graph.edges and plan.graph.settings == spec.graph.settings:
            return spec.record.search(outcome for outcome in known.known if outcome.edge in fresh.edges)
    return fresh


def measure_state(recipe: Recipe, setting: Setting, *, devices: int | None = None) -> StateCost:
    """Train and validate a few batches under a setting, in a folder that is deleted afterwards.

    Args:
        recipe: Makes the experiment.
        setting: The setting.
        devices: Devices to train on, if not those of the Trainer.
    """
    watch, meter = _Stopwatch(), Meter()
    with hushed(), tempfile.TemporaryDirectory() as folder:
        experiment = recipe.build(setting, callbacks=[watch, meter], folder=folder, devices=devices)
        ensure_fresh(experiment, [watch, meter])  # what they share must not take this training along
        trainer: Any = experiment.trainer
        quiet(trainer)
        trainer.logger = None
        remove_callbacks(trainer, lambda callback: isinstance(callback, Checkpoint))
        limit = trainer.max_epochs
        limits = trainer.limit_train_batches, trainer.limit_val_batches
        trainer.limit_train_batches = trainer.limit_val_batches = _WARM_UP + _BATCHES
        trainer.val_check_interval, trainer.check_val_every_n_epoch = 1.0, 1
        limit_epochs(trainer, 1, is_exact=True)
        fit(experiment)
        loaders = trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        spent = meter.spent(trainer)
        state = experiment.model.state_dict().values()
        batches = _num_batches(trainer.train_dataloader, limits[0])
        samples = spent.num_samples / max(watch.num_train, 1) * batches
        drawn = _num_drawn(trainer.train_dataloader)
        if drawn is not None:  # the last batch may be a small one
            samples = min(samples, drawn * trainer.world_size)
        return StateCost(
            train_batches=batches,
            val_batches=sum(_num_batches(loader, limits[1]) for loader in loaders if loader is not None),
            train_seconds=watch.train_seconds,
            val_seconds=watch.val_seconds,
            clip_frames=(spent.clip_frames or spent.num_samples) / spent.num_samples * samples,
            num_samples=samples,
            weights=sum(tensor.numel() * tensor.element_size() for tensor in state),
            devices=trainer.world_size,
            max_epochs=limit if limit and limit > 0 else None,
        )


def _num_batches(loader: Any, limit: float | None) -> int:
    """Batches of an epoch, as Lightning counts them under ``limit_…_batches``."""
    try:
        number = len(loader)
    except TypeError:
        raise ValueError(
            "An estimate must know how many batches an epoch has, got a loader without a length. Give its data one."
        ) from None
    if limit is None:
        return number
    return min(number, limit) if isinstance(limit, int) else int(number * limit)


def _num_drawn(loader: Any) -> int | None:
    """Samples that a process draws in an epoch, where its loader knows."""
    try:
        return len(loader.sampler)
    except (AttributeError, TypeError):
        return None


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
