"""What ends the training of an edge, and which of its epochs is kept: the knee, or the last before a pause."""

import math
import os
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from lightning_opplan._lightning import has_reached_a_limit, limit_epochs, validate_within_fit
from lightning_opplan.callbacks import KneeStopping
from lightning_opplan.callbacks.saving import save_checkpoint
from lightning_opplan.planning.knee import KneeDecision
from lightning_opplan.planning.standings import averaged_value
from lightning_opplan.tuner.edges.fixed import ForEpochs
from lightning_opplan.tuner.edges.job import EdgeJob
from lightning_opplan.tuner.edges.trained import Trained

__all__ = ["AsAsked", "Stopping", "UntilKnee"]


class UntilKnee(KneeStopping):
    """Train an edge up to its knee, or until it is to be paused."""

    _owns_folder = True

    def __init__(self, job: EdgeJob) -> None:
        super().__init__(
            job.monitor,
            mode=job.mode,
            rival=job.rival,
            dirpath=str(job.folder.resume),
            **vars(job.rule),
        )
        self._job, self._is_paused = job, False
        self._measures_start = not job.is_from_start or job.start_value is None
        if not self._measures_start:
            self.initial_value = job.start_value
        self.unlearned: float | None = None
        self._pause_path: str | None = None

    def prepare(self, trainer: Trainer) -> None:
        """Set the limits of a Trainer, before its fit."""
        limit, given = self._job.max_epochs, trainer.max_epochs
        if limit is not None:
            limit_epochs(trainer, limit if given is None or given < 0 else min(limit, given))

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
            unlearned=self.unlearned,
        )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "unlearned": self.unlearned}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.unlearned = state_dict.get("unlearned")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._job.until is not None and math.isinf(trainer.num_training_batches) and self._has_interval(trainer):
            raise ValueError(
                "A search that pauses trainings, with a budget or the preset 'fast', must know where epochs end, got "
                "a stream without a length. Give it epochs, with `limit_train_batches`."
            )
        if self._measures_start and trainer.ckpt_path is None:
            self._measure_start(trainer)
        super().on_train_start(trainer, pl_module)
        self._pause_after(trainer, trainer.current_epoch)

    def _has_interval(self, trainer: Trainer) -> bool:
        return isinstance(trainer.val_check_interval, int) and not isinstance(trainer.val_check_interval, bool)

    def _measure_start(self, trainer: Trainer) -> None:
        """Measure y₀; an untrained classifier is worth 0 in the paper, and here where that is not too good."""
        metric = validate_within_fit(trainer).get(self.monitor)
        value = float(trainer.strategy.broadcast(math.nan if metric is None else float(metric)))
        if not math.isfinite(value):
            return  # if it is never logged, the first validation of an epoch says so
        if self._job.is_from_start:
            self.unlearned = value
            if self.mode == "max":
                value = min(value, 0.0)
        self.initial_value = value

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        epoch = trainer.current_epoch + 1
        self._pause_after(trainer, epoch)
        if self._is_paused and epoch not in self._kept.paths:  # it was not validated at its end
            self._pause_path = os.path.join(self._kept.folder, "pause.ckpt")
            save_checkpoint(trainer, self._pause_path)

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


class AsAsked(UntilKnee):
    """Train an arm of a budgeted search: it has no end of its own, and goes on as long as it is asked to.

    Its value is the mean of its last validations, its weights are the last.
    """

    def __init__(self, job: EdgeJob) -> None:
        super().__init__(job)
        self._measures_start, self.initial_value = False, None

    @override
    def prepare(self, trainer: Trainer) -> None:
        limit_epochs(trainer, self._job.max_epochs or -1, is_exact=True)
        trainer.check_val_every_n_epoch = 1  # a rung may end after any epoch, and has to know what it is worth

    @override
    def trained(self) -> Trained:
        last = self.points[-1][0] if self.points else 0
        return Trained(
            points=self.points,
            value=averaged_value(self.points),
            epoch=last,
            checkpoint=self._pause_path or self.knee_path,
            reason=self.stopping_reason,
            is_paused=self._is_paused,
        )

    @override
    def _decide(self, trainer: Trainer) -> KneeDecision:
        epoch = self.points[-1][0]
        value = averaged_value(self.points)
        return KneeDecision(stop=False, knee_epoch=epoch, knee_value=value, fit=None, plausible=(epoch,))

    @override
    def _message_of_rates(self, before: list[float], rates: list[float]) -> str | None:
        if not any(rate < earlier for rate, earlier in zip(rates, before, strict=True)):
            return None
        return (
            f"The learning rate fell from {before} to {rates} during a search with a budget, which compares "
            "trainings at a constant rate. Leave the scheduler out: `opplan deliver` lowers the rate at the end."
        )


Stopping = UntilKnee | ForEpochs
