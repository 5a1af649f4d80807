"""What ends a training, and which of its epochs is kept: the knee, or the last of a given number."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_opplan._lightning import (
    has_reached_a_limit,
    keep_validation_trainable,
    limit_epochs,
    remove_callbacks,
)
from lightning_opplan.callbacks import KneeStopping
from lightning_opplan.callbacks.saving import save_checkpoint_atomically
from lightning_opplan.planning.knee import Point
from lightning_opplan.tuner.edges.checkpoints import MAX_CHECKPOINTS
from lightning_opplan.tuner.edges.job import EdgeJob
from lightning_opplan.tuner.edges.recipe import Experiment

__all__ = ["ForEpochs", "Trained", "UntilKnee"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        points: Epoch and value of the validations.
        value: What the kept weights are worth; ``None`` if the training diverged.
        standard_error: Of the value, where something was fitted.
        epoch: The epoch of the weights.
        checkpoint: Checkpoint of that epoch.
        reason: One sentence on why it ended.
        is_paused: Whether it has not ended, and is to go on later.
    """

    points: tuple[Point, ...]
    value: float | None = None
    standard_error: float | None = None
    epoch: float = 0
    checkpoint: str | None = None
    reason: str | None = None
    is_paused: bool = False


class UntilKnee(KneeStopping):
    """Train an edge up to its knee, or until it is to be paused."""

    def __init__(self, job: EdgeJob) -> None:
        super().__init__(
            job.monitor,
            mode=job.mode,
            rival=job.rival,
            dirpath=str(job.folder.resume),
            max_checkpoints=MAX_CHECKPOINTS,
            **vars(job.rule),
        )
        self._job, self._is_paused = job, False

    def prepare(self, trainer: Trainer) -> None:
        """Set the limits of a Trainer, before its fit."""
        limit, given = self._job.max_epochs, trainer.max_epochs
        if limit is not None:
            limit_epochs(trainer, limit if given is None or given < 0 else min(limit, given))

    def begin(self, experiment: Experiment) -> None:
        """Measure y₀; an untrained classifier is worth 0 in the paper, and here where that is not too good."""
        job, trainer = self._job, experiment.trainer
        if job.is_from_start and job.start_value is not None:
            self.initial_value = job.start_value
            return
        keep_validation_trainable(trainer)
        trainer.validate(experiment.model, experiment.data, verbose=False)
        metric = trainer.callback_metrics.get(job.monitor)
        if metric is None:
            return  # the first validation of the fit says what is wrong
        value = float(trainer.strategy.broadcast(float(metric)))
        if job.is_from_start and job.mode == "max" and value >= 0:
            value = 0.0
        self.initial_value = value if math.isfinite(value) else None

    def trained(self) -> Trained:
        """Return what the training came to."""
        value, standard_error = self.rule.valued(self.points, self.mode, self._job.value)
        return Trained(
            points=self.points,
            value=value,
            standard_error=standard_error,
            epoch=self.knee_epoch or 0,
            checkpoint=None if self.knee_value is None else self.knee_path,
            reason=self.stopping_reason,
            is_paused=self._is_paused,
        )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._pause_after(trainer, trainer.current_epoch)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        epoch = trainer.current_epoch + 1
        self._pause_after(trainer, epoch)
        if self._is_paused and epoch not in self._kept:  # it was not validated at its end
            save_checkpoint_atomically(trainer, os.path.join(self._folder, "pause.ckpt"))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_paused:  # any checkpoint that is there may still become the knee
            super().on_fit_end(trainer, pl_module)

    def _pause_after(self, trainer: Trainer, epochs: int) -> None:
        until = self._job.until
        may_stop = epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
        self._is_paused = until is not None and epochs >= until and may_stop and not has_reached_a_limit(trainer)
        if self._is_paused:
            trainer.should_stop = True


class ForEpochs(Checkpoint):
    """Train for given epochs, whatever a metric says, and keep the last one.

    Callbacks that watch a metric are left out: there is no validation, or one at the end alone.

    Args:
        epochs: Epochs to train; may be a fraction.
        dirpath: Folder of the checkpoint.
        monitor: Metric to validate at the end; by default nothing is validated.
        rate_factor: What the learning rate is multiplied by after so many epochs; by default it stays.
    """

    def __init__(
        self,
        epochs: float,
        *,
        dirpath: Path,
        monitor: str | None = None,
        rate_factor: Callable[[float], float] | None = None,
    ) -> None:
        self.epochs, self.monitor, self.rate_factor = epochs, monitor, rate_factor
        self.path = os.path.join(dirpath, "last.ckpt")
        self.points: tuple[Point, ...] = ()
        self._rates: list[float] = []

    def prepare(self, trainer: Trainer) -> None:
        """Set the limits of a Trainer, before its fit."""
        whole = math.ceil(self.epochs)
        limit_epochs(trainer, whole, is_exact=True)
        if self.monitor is None:
            trainer.limit_val_batches = 0
        else:
            trainer.check_val_every_n_epoch, trainer.val_check_interval = whole, 1.0
        remove_callbacks(trainer, lambda other: other is not self and getattr(other, "monitor", None) is not None)

    def begin(self, experiment: Experiment) -> None:
        """Look at nothing: what a training begins with does not matter to it."""

    def trained(self) -> Trained:
        """Return what the training came to."""
        value = self.points[-1][1] if self.points else None
        return Trained(
            points=self.points,
            value=value,
            epoch=self.epochs,
            checkpoint=None if self.monitor is not None and value is None else self.path,
            reason=f"Trained for the {self.epochs:g} epochs of its part of the training.",
        )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._rates:  # a resumed training has them from its checkpoint: those of the optimizer are lowered
            self._rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if self.rate_factor is None:
            return
        factor = self.rate_factor(trainer.current_epoch + batch_idx / trainer.num_training_batches)
        groups = (group for optimizer in trainer.optimizers for group in optimizer.param_groups)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * factor

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        if not float(self.epochs).is_integer() and done >= self.epochs - 1e-6:
            trainer.should_stop = True

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        save_checkpoint_atomically(trainer, self.path)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is None or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
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
