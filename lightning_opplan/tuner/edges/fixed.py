"""Trainings whose epochs are given beforehand."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_opplan._lightning import limit_epochs, remove_callbacks
from lightning_opplan.callbacks.saving import save_checkpoint
from lightning_opplan.planning.knee import Point
from lightning_opplan.tuner.edges.trained import Trained

__all__ = ["ForEpochs"]


class ForEpochs(Checkpoint):
    """Train for given epochs, whatever a metric says, and keep the last one.

    Callbacks that watch a metric are left out: there is no validation, or one at the end alone.

    Args:
        epochs: Epochs to train; may be a fraction. Of a stream without length, ``val_check_interval`` batches each, as
            every validation ends an epoch of its search.
        dirpath: Folder of the checkpoint.
        monitor: Metric to validate at the end; by default nothing is validated.
        rate_factor: What the learning rate is multiplied by after so many epochs; by default it stays. On top of what
            a scheduler of the model's does.
        value: What the training counts as, if nothing is validated.
    """

    def __init__(
        self,
        epochs: float,
        *,
        dirpath: Path,
        monitor: str | None = None,
        rate_factor: Callable[[float], float] | None = None,
        value: float | None = None,
    ) -> None:
        self.epochs, self.monitor, self.rate_factor, self.value = epochs, monitor, rate_factor, value
        self.path = os.path.join(dirpath, "last.ckpt")
        self.points: tuple[Point, ...] = ()
        self._done = 0.0
        self._interval: int | None = None

    def prepare(self, trainer: Trainer) -> None:
        """Set the limits of a Trainer, before its fit."""
        whole = math.ceil(self.epochs)
        interval = trainer.val_check_interval
        self._interval = interval if isinstance(interval, int) and not isinstance(interval, bool) else None
        limit_epochs(trainer, whole, is_exact=True)
        if self.monitor is None:
            trainer.limit_val_batches = 0
        else:
            trainer.check_val_every_n_epoch, trainer.val_check_interval = whole, 1.0
        remove_callbacks(trainer, lambda other: other is not self and getattr(other, "monitor", None) is not None)

    def trained(self) -> Trained:
        """Return what the training came to."""
        value = self.points[-1][1] if self.points else self.value
        return Trained(
            points=self.points,
            value=value,
            epoch=self.epochs,
            checkpoint=None if self.monitor is not None and value is None else self.path,
            reason=f"Trained for the {self.epochs:g} epochs of its part of the training.",
        )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_stream(trainer):
            trainer.check_val_every_n_epoch = 1  # its end is a validation, whenever that is
        if self.monitor is None:  # without validation there is no metric for a scheduler to follow
            for config in trainer.lr_scheduler_configs:
                config.strict = False
        if self.rate_factor is not None:
            for optimizer in trainer.optimizers:
                self._lower_within_steps(optimizer, self.rate_factor)

    def _is_stream(self, trainer: Trainer) -> bool:
        return math.isinf(trainer.num_training_batches) and self._interval is not None

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        if not self._is_stream(trainer):
            self._done = trainer.current_epoch + batch_idx / trainer.num_training_batches

    def _lower_within_steps(self, optimizer: Optimizer, rate_factor: Callable[[float], float]) -> None:
        """Lower the rate for the step alone: schedulers go on from the rate that they have set."""
        given: list[list[float]] = []  # a step that calls its parent class's has hooks within hooks

        def lower(*_: object) -> None:
            given.append([group["lr"] for group in optimizer.param_groups])
            for group in optimizer.param_groups if len(given) == 1 else ():
                group["lr"] = group["lr"] * rate_factor(self._done)

        def restore(*_: object) -> None:
            for group, rate in zip(optimizer.param_groups, given.pop(), strict=True):
                group["lr"] = rate

        optimizer.register_step_pre_hook(lower)
        optimizer.register_step_post_hook(restore)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        is_stream = self._is_stream(trainer)
        if is_stream:
            self._done += 1 / (self._interval or 1)
        else:
            self._done = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        if (is_stream or not float(self.epochs).is_integer()) and self._done >= self.epochs - 1e-6:
            trainer.should_stop = True

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if math.isinf(trainer.num_training_batches) and self._interval is None:
            self._done = trainer.current_epoch + 1
        save_checkpoint(trainer, self.path)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._done < self.epochs - 1e-6:
            raise RuntimeError(
                f"The training ended after {self._done:g} of {self.epochs:g} epochs: `max_steps`, `max_time`, a "
                "callback or the lack of batches ended it. Leave what ends it out of the configuration."
            )

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
        return {"points": [list(point) for point in self.points], "done": self._done}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = tuple((epoch, value) for epoch, value in state_dict["points"])
        self._done = state_dict.get("done", self.epochs)
