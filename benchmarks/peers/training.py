"""One training under a setting, which all rivals share: it can be gone on with, listened to, and trained anew."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from peers.data import Part
from peers.tasks import Setting, Task

Shape = Literal["constant", "cosine", "linear end"]
EpochListener = Callable[[int, float], bool | None]
"""Is told the epoch, from 1, and its validation accuracy; ends the training by returning ``True``."""

LINEAR_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a training left, to go on from; without the optimizer's state, a further one starts with no momentum."""

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] | None = None


def rate_factor(shape: Shape, progress: float) -> float:
    """What the learning rate is multiplied by, `progress` from 0 to 1 over the epochs of a training."""
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if shape == "linear end":
        return min(1.0, (1.0 - progress) / LINEAR_SHARE)
    return 1.0


def train(
    task: Task,
    setting: Setting,
    epochs: int,
    schedule: Shape,
    seed: int,
    *,
    weights: Weights | None = None,
    on_epoch: EpochListener | None = None,
    part: Part = "train",
    averaging: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> Weights:
    """Train for some epochs, or until somebody stops it.

    Args:
        task: On the data of a seed.
        setting: Hyper-parameters.
        epochs: Epochs of this call, over which the schedule goes.
        schedule: The course of the learning rate.
        seed: Seed of new weights, the order of samples, and augmentation.
        weights: Where to go on from.
        on_epoch: Listens to validation, which is left out if nobody does.
        part: What to train on.
        averaging: Time constant of a moving average of the weights as a share of the training so far, to end with.
        callbacks: Further ones; they are given validations, too.
    """
    seed_everything(seed, verbose=False)
    model, data = task.model(**named(setting, "model")), task.data(part=part, **named(setting, "data"))
    if weights is not None:
        model.load_state_dict(weights.model)
    every = [_Course(schedule, weights, task.monitor, on_epoch), *callbacks]
    if averaging is not None:
        from lightning_opplan.callbacks.weight_averaging import GrowingWeightAveraging

        every.append(GrowingWeightAveraging(averaging))
    is_validated = on_epoch is not None or bool(callbacks)
    limits = {} if is_validated else {"limit_val_batches": 0}
    trainer = task.trainer(callbacks=every, max_epochs=epochs, **limits, **named(setting, "trainer"))
    trainer.fit(model, data)
    optimizer = None if averaging else trainer.optimizers[0].state_dict()
    return Weights(model=copied(model), optimizer=optimizer)


def training_seed(seed: int, number: int) -> int:
    """Seeds of the trainings of a rival, apart from each other."""
    return 1000 * (seed + 1) + number


def named(setting: Setting, target: str) -> dict[str, Any]:
    """The values of a setting for one of the three factories."""
    return {key.removeprefix(f"{target}."): value for key, value in setting.items() if key.startswith(f"{target}.")}


def copied(model: LightningModule) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def probabilities(task: Task, model: Mapping[str, Tensor], part: Part) -> tuple[Tensor, Tensor]:
    """The probabilities of the classes for a part's samples, and their labels."""
    network, data = task.model(), task.data()
    network.load_state_dict(model)
    network.eval()
    loader = data.test_dataloader() if part == "test" else data.val_dataloader()
    scored = [(network(x).softmax(1), y) for x, y in loader]
    scores, labels = zip(*scored, strict=True)
    return torch.cat(scores), torch.cat(labels)


def accuracy(task: Task, *models: Mapping[str, Tensor], part: Part = "validation") -> float:
    """Accuracy of one model, or of several whose probabilities are averaged with equal weights."""
    scored = [probabilities(task, model, part) for model in models]
    mean = torch.stack([scores for scores, _ in scored]).mean(0)
    return float((mean.argmax(1) == scored[0][1]).double().mean())


class Schedule(Protocol):
    """How a found training is trained anew."""

    @property
    def epochs(self) -> float:
        """Epochs that it takes."""

    def scaled(self, factor: float) -> "Schedule":
        """Return it with so many times as many epochs."""

    def replay(self, task: Task, seed: int) -> Mapping[str, Tensor]:
        """Train it on the training and the validation part."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a training under one setting.

    Attributes:
        goes_on: Whether the optimizer keeps its momentum from the segment before.
    """

    setting: Setting
    epochs: int
    shape: Shape = "constant"
    goes_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Segments:
    """A schedule of segments, one after the other."""

    segments: tuple[Segment, ...]
    averaging: float | None = None

    @property
    def epochs(self) -> float:
        return sum(segment.epochs for segment in self.segments)

    def scaled(self, factor: float) -> "Segments":
        scaled = [replace(each, epochs=max(round(each.epochs * factor), 1)) for each in self.segments]
        return replace(self, segments=tuple(scaled))

    def replay(self, task: Task, seed: int) -> Mapping[str, Tensor]:
        weights = None
        for number, each in enumerate(self.segments):
            if weights is not None and not each.goes_on:
                weights = replace(weights, optimizer=None)
            weights = train(
                task, each.setting, each.epochs, each.shape, seed + number, weights=weights, part="all",
                averaging=self.averaging,
            )  # fmt: skip
        assert weights is not None
        return weights.model

    def __str__(self) -> str:
        def word(segment: Segment) -> str:
            values = (f"{value:g}" if isinstance(value, float) else str(value) for value in segment.setting.values())
            return f"{'/'.join(values)} {segment.shape} × {segment.epochs}"

        return " → ".join(map(word, self.segments))


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a rival found.

    Attributes:
        model: The best model that it trained.
        value: Its validation accuracy.
        spent: Epochs over the training part.
        schedule: How to train it anew.
        promised: What the search said it is worth, and what is to be expected of that, where it says so.
    """

    model: Mapping[str, Tensor]
    value: float
    spent: float
    schedule: Schedule
    promised: tuple[float, float] | None = None


class _Course(Callback):
    """Set the rate before every step, go on with the momentum, and pass validations on."""

    def __init__(self, shape: Shape, weights: Weights | None, monitor: str, listener: EpochListener | None) -> None:
        self.shape, self.weights, self.monitor, self.listener = shape, weights, monitor, listener
        self.rates: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        self.rates = [group["lr"] for group in groups]
        if self.weights is not None and self.weights.optimizer is not None:
            # The momentum alone: rates and weight decays are those of the new setting.
            now = trainer.optimizers[0].state_dict()
            trainer.optimizers[0].load_state_dict({**now, "state": self.weights.optimizer["state"]})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.shape == "constant":
            return
        done = trainer.current_epoch + batch_idx / trainer.num_training_batches
        factor = rate_factor(self.shape, done / trainer.max_epochs)
        for group, rate in zip(trainer.optimizers[0].param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.listener is None or trainer.sanity_checking:
            return
        if self.listener(trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])):
            trainer.should_stop = True
