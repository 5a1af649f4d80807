"""The tasks: what is trained, on what, and which settings there are to choose from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn
from torch.nn import functional

from peers.data import SOURCES, Part, TensorData

RATE, DECAY = "model.learning_rate", "model.weight_decay"
RATES = (0.3, 0.1, 0.03, 0.01)
DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
Setting = Mapping[str, Any]


def mnist1d_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(16, 16, 5, stride=4, padding=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(80, 10),
    )  # fmt: skip


def digits_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def tabular_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6))


class Classifier(LightningModule):
    """A network trained by SGD; logs ``val/accuracy`` and nothing else."""

    def __init__(
        self,
        network: Callable[[], nn.Module],
        *,
        learning_rate: float = 0.1,
        weight_decay: float = 1e-4,
        on_plateau: bool = False,
    ) -> None:
        super().__init__()
        self.network = network()
        self.learning_rate, self.weight_decay, self.on_plateau = learning_rate, weight_decay, on_plateau

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return functional.cross_entropy(self(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val/accuracy", (self(x).argmax(1) == y).float().mean(), batch_size=len(y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(
            self.parameters(), self.learning_rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
        if not self.on_plateau:
            return optimizer
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/accuracy"}}


def bare_trainer(*, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
    """A Trainer that does nothing beside training and validation."""
    keeps = any(isinstance(callback, Checkpoint) for callback in callbacks)
    fixed = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "max_epochs": -1,
        "enable_model_summary": False, "num_sanity_val_steps": 0, "gradient_clip_val": 2.0,
        "use_distributed_sampler": False, "enable_checkpointing": keeps, "callbacks": list(callbacks),
    }  # fmt: skip
    return Trainer(**{**fixed, **options})


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to train, with settings to choose from.

    Attributes:
        name: As in the command line and the rows.
        model: Returns a LightningModule; takes the settings ``model.*`` by keyword.
        data: The same for the data module and ``data.*``; also takes ``seed``, and ``part="all"`` to train on the
            validation part, too. Loaders yield samples and labels.
        trainer: The same for the Trainer.
        axis: An ordered list of settings, from how training starts to how it ends.
        default: What somebody would take who tries nothing.
        budget: The unit B in epochs: what the paper's search costs.
        price_of_all: What an epoch over the training and validation parts costs, in epochs.
        seeds: Seeds of the table; of data, weights and whatever a rival draws.
        seed: That of the data, once one is chosen.
        rates: Learning rates to choose from.
        decays: Weight decays to choose from.
        monitor: Metric that validation logs; higher is better.
    """

    name: str
    model: Callable[..., LightningModule]
    data: Callable[..., LightningDataModule]
    trainer: Callable[..., Trainer] = bare_trainer
    axis: Sequence[Setting]
    default: Setting
    budget: float
    price_of_all: float
    seeds: Sequence[int] = tuple(range(8))
    seed: int | None = None
    rates: Sequence[float] = RATES
    decays: Sequence[float] = DECAYS
    monitor: str = "val/accuracy"

    @property
    def space(self) -> list[Setting]:
        """All settings."""
        return [self.setting(*point) for point in product(range(len(self.axis)), self.rates, self.decays)]

    def of(self, seed: int) -> "Task":
        """Return the task on the data of a seed."""
        return replace(self, data=partial(self.data, seed=seed), seed=seed)

    def setting(self, step: int, rate: float, decay: float) -> Setting:
        return {**self.axis[step], RATE: rate, DECAY: decay}

    def price(self, part: Part) -> float:
        """What an epoch over a part costs, in epochs over the training part."""
        return self.price_of_all if part == "all" else 1.0


def small(name: str, network: Callable[[], nn.Module], key: str, values: Sequence[float], budget: float) -> Task:
    """A task on one of the small data sets, whose axis is one setting of the data module."""
    axis = [{key: value} for value in values]
    sizes = SOURCES[name].sizes
    return Task(
        name=name,
        model=partial(Classifier, network),
        data=partial(TensorData, name, **({} if key == "data.batch_size" else {"batch_size": BATCH_SIZES[name]})),
        axis=axis,
        default={**axis[len(axis) // 2], RATE: 0.1, DECAY: 1e-4},
        budget=budget,
        price_of_all=(sizes.train + sizes.validation) / sizes.train,
    )


BATCH_SIZES = {"digits": 40, "tabular": 100}

# Budgets: medians of seeds 100 to 103 (396, 294, 313, 281; 2046, 736, 377, 3796; 418, 442, 456, 362), on two cores of
# an EPYC: python benchmarks/peers.py --calibrate
TASKS = {
    task.name: task
    for task in (
        small("mnist1d", mnist1d_network, "data.batch_size", (50, 100, 200), 304),
        small("digits", digits_network, "data.augmentation", (2, 1, 0), 1391),
        small("tabular", tabular_network, "data.augmentation", (0.0, 0.3, 0.6), 430),
    )
}
