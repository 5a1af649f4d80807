"""Parts of trainings whose epochs are given: they keep the last epoch, whatever the metric says."""

import math
import os
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_opplan.callbacks.saving import save_checkpoint_atomically
from lightning_opplan.planning.hand_tuned import FixedStage
from lightning_opplan.planning.knee import Point, ValueKind

__all__ = ["FixedEpochs", "LastEpoch"]


class LastEpoch(Checkpoint):
    """Keep a checkpoint of the last epoch."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "last.ckpt")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        save_checkpoint_atomically(trainer, self.path)


class FixedEpochs(LastEpoch):
    """Train a stage of a hand-tuned training, with its learning rate; stands where `KneeStopping` stands in a search.

    Args:
        monitor: Name of the metric.
        dirpath: Folder of the checkpoint.
        stage: Epochs and decay.
    """

    def __init__(self, monitor: str, *, dirpath: str, stage: FixedStage) -> None:
        super().__init__(dirpath)
        self.monitor, self.stage = monitor, stage
        self.points: tuple[Point, ...] = ()
        self.stopping_reason = f"Trained for the {stage.epochs} epochs of its part of the training."
        self._rates: list[float] = []

    @property
    def knee_epoch(self) -> float | None:
        """The last epoch."""
        return self.stage.epochs

    @property
    def knee_value(self) -> float | None:
        """The metric after it."""
        return self.points[-1][1] if self.points else None

    @property
    def knee_path(self) -> str:
        """The checkpoint of it."""
        return self.path

    def valued(self, kind: ValueKind = "observed") -> tuple[float | None, float | None]:  # noqa: ARG002
        """Return the metric after the last epoch; nothing is fitted."""
        return self.knee_value, None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._rates:  # a resumed training has them from its checkpoint: those of the optimizer are lowered
            self._rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self.stage.decay == "step":
            return
        factor = self.stage.rate_factor(trainer.current_epoch + batch_idx / trainer.num_training_batches)
        groups = (group for optimizer in trainer.optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * factor

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        metric = trainer.callback_metrics.get(self.monitor)
        # The first rank may be the only one that logs it.
        found = trainer.strategy.broadcast(None if metric is None else float(metric))
        if found is None:
            raise RuntimeError(f"`monitor` must be a metric that validation logs, got {self.monitor!r}.")
        value = float(found)
        self.points = ((trainer.current_epoch + 1, value if math.isfinite(value) else None),)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"rates": self._rates, "points": [list(point) for point in self.points]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rates = list(state_dict["rates"])
        self.points = tuple((epoch, value) for epoch, value in state_dict["points"])
