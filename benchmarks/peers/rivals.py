"""Rivals that train in this process: random search, plateaus, one epoch of everything, and Optuna."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from peers.tasks import RATE, Setting, Task
from peers.training import Found, Segment, Segments, Shape, accuracy, copied, train, training_seed

NUM_TRIALS = 8


@dataclass
class Best:
    """The best of what was trained so far, and what all of it took."""

    value: float = -1.0
    model: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Segments = field(default_factory=lambda: Segments(segments=()))
    spent: float = 0.0

    def offer(self, value: float, model: Mapping[str, Tensor], schedule: Segments) -> None:
        if value > self.value:
            self.value, self.model, self.schedule = value, model, schedule

    def found(self) -> Found:
        return Found(model=self.model, value=self.value, spent=self.spent, schedule=self.schedule)


def random_search(task: Task, budget: float, seed: int, *, shape: Shape, averaging: float | None = None) -> Found:
    """Some settings by chance, an equal part of the budget for each."""
    best, epochs, space = Best(), max(int(budget / NUM_TRIALS), 1), task.space
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(space))[:NUM_TRIALS]):
        whole = Segments(segments=(Segment(setting=space[index], epochs=epochs, shape=shape),), averaging=averaging)
        weights = train(task, space[index], epochs, shape, training_seed(seed, number), averaging=averaging)
        best.spent += epochs
        best.offer(accuracy(task, weights.model), weights.model, whole)
    return best.found()


def one_epoch(task: Task, budget: float, seed: int) -> Found:
    """Every setting for one epoch, at most half of the budget; then the best one, constant and linear to zero."""
    draw, space, best = np.random.default_rng(seed), task.space, Best()
    tried = draw.permutation(len(space))[: int(budget / 2)]
    values = {}
    for number, index in enumerate(tried):
        weights = train(task, space[index], 1, "constant", training_seed(seed, number))
        values[index] = accuracy(task, weights.model)
    setting, epochs = space[max(values, key=values.__getitem__)], max(int(budget) - len(tried), 1)
    weights = train(task, setting, epochs, "linear end", training_seed(seed, len(space)))
    best.spent = len(tried) + epochs
    segment = Segment(setting=setting, epochs=epochs, shape="linear end")
    best.offer(accuracy(task, weights.model), weights.model, Segments(segments=(segment,)))
    return best.found()


class Recorder(Callback):
    """The rate of every epoch, and the weights of the best one."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.rates: list[float] = []
        self.value, self.epoch, self.model = -1.0, 0, dict[str, Tensor]()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        value = float(trainer.callback_metrics[self.monitor])
        if value > self.value:
            self.value, self.epoch, self.model = value, len(self.rates), copied(pl_module)

    def schedule(self, setting: Setting) -> Segments:
        """The rates up to the best epoch."""
        runs = [(rate, len(list(run))) for rate, run in groupby(self.rates[: self.epoch])]
        segments = [
            Segment(setting={**setting, RATE: rate}, epochs=epochs, goes_on=number > 0)
            for number, (rate, epochs) in enumerate(runs)
        ]
        return Segments(segments=tuple(segments))


def on_plateau(task: Task, setting: Setting, limit: int, seed: int, best: Best) -> None:
    """Lower the rate on a plateau, by torch's default after 10 epochs, and stop where two lower ones did no good."""
    record = Recorder(task.monitor)
    stopping = EarlyStopping(task.monitor, mode="max", patience=25)
    train(task, {**setting, "model.on_plateau": True}, limit, "constant", seed, callbacks=[record, stopping])
    best.spent += len(record.rates)
    best.offer(record.value, record.model, record.schedule(setting))


def plateau(task: Task, budget: float, seed: int) -> Found:
    """The default setting once; stops by itself, what is left of the budget is not spent."""
    best = Best()
    on_plateau(task, task.default, int(budget), training_seed(seed, 0), best)
    return best.found()


def plateau_restarts(task: Task, budget: float, seed: int) -> Found:
    """The same with settings by chance, one after the other until the budget is spent."""
    best, space = Best(), task.space
    order = np.random.default_rng(seed).permutation(len(space))
    number = 0
    while budget - best.spent >= 1:
        setting = space[order[number % len(space)]]
        on_plateau(task, setting, int(budget - best.spent), training_seed(seed, number), best)
        number += 1
    return best.found()


def tpe_hyperband(task: Task, budget: float, seed: int) -> Found:
    """Optuna: TPE proposes settings, Hyperband prunes their trainings, cosines over an eighth of the budget."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    longest = max(int(budget / 8), 3)
    pruner = optuna.pruners.HyperbandPruner(min_resource=max(longest // 9, 1), max_resource=longest)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner, study_name="peers"
    )
    complete, cut = Best(), Best()

    def objective(trial: optuna.Trial) -> float:
        step = trial.suggest_int("step", 0, len(task.axis) - 1)
        rate, decay = (trial.suggest_int(name, 0, len(values) - 1) for name, values in numbered.items())
        setting = task.setting(step, task.rates[rate], task.decays[decay])
        value, is_pruned = 0.0, False

        def listen(epoch: int, accuracy: float) -> bool:
            nonlocal value, is_pruned
            value = accuracy
            complete.spent += 1
            trial.report(accuracy, epoch)
            is_pruned = epoch < longest and (complete.spent >= budget or trial.should_prune())
            return is_pruned

        weights = train(task, setting, longest, "cosine", training_seed(seed, trial.number), on_epoch=listen)
        segment = Segment(setting=setting, epochs=longest, shape="cosine")
        (cut if is_pruned else complete).offer(value, weights.model, Segments(segments=(segment,)))
        if complete.spent >= budget:
            study.stop()
        if is_pruned:
            raise optuna.TrialPruned
        return value

    numbered = {"rate": task.rates, "decay": task.decays}
    study.optimize(objective)
    cut.spent = complete.spent
    return (complete if complete.model else cut).found()
