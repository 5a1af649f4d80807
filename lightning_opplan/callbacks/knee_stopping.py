"""Stop training at the knee of the fitted validation curve, and keep the weights of that epoch."""

import math
import os
from dataclasses import fields, replace
from typing import Any, Final, get_args

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from lightning_opplan._lightning import is_last_batch, logging_step, num_batches_done, state_key
from lightning_opplan.callbacks.kept import KeptCheckpoints
from lightning_opplan.callbacks.monitored import MonitoredMetric
from lightning_opplan.callbacks.reasons import is_beyond, number, reason_to_stop
from lightning_opplan.callbacks.saving import checkpoint_folder, tell_loggers, tell_role
from lightning_opplan.messages import checked_choice, checked_names
from lightning_opplan.planning.curves import Mode, falls, sounds_lower
from lightning_opplan.planning.knee import KneeDecision, KneeRule, Point

__all__ = ["MAX_CHECKPOINTS", "KneeStopping"]

MAX_CHECKPOINTS: Final = 20
"""Checkpoints that are kept at most, if nothing else is said."""


class KneeStopping(Checkpoint):
    """Stop once the fitted validation curve has peaked, and keep the weights of the peak.

    After every validation a smooth curve is fitted to all values so far. Its peak is the knee; training stops
    `patience` epochs after it. Unlike patience on the raw values, one lucky or unlucky validation decides nothing.

    The callback saves a checkpoint per epoch and deletes those that can no longer become the knee. At the end only
    the knee's is left, and ``trainer.test(ckpt_path="best")`` uses it. As it does the checkpointing, Lightning adds no
    default `ModelCheckpoint`; one of your own works beside it. Folders and names are those of `ModelCheckpoint`, and
    what an earlier fit has written is never deleted, the checkpoint that a fit resumes from among it.

    Args:
        monitor: Name of the metric, logged in validation.
        mode: `"max"` if a higher value is better, the default; `"min"` if a lower one is.
        rival: A value that has been reached otherwise: stop once this training has no chance to reach it.
        initial_value: The metric of the weights before the first epoch (y₀), if known. With it, epoch 0 belongs to the
            curve, and the knee may be there: the weights that training started from.
        strict: Whether a metric that is not logged is an error or only a warning.
        verbose: Say after every validation where the knee is.
        dirpath: Folder of the checkpoints, or a URL that fsspec knows. By default that of `ModelCheckpoint`:
            ``checkpoints`` in the logger's folder.
        save_weights_only: Leave optimizers and loops out of the checkpoints: smaller, but nothing to resume from.
        max_checkpoints: Checkpoints to keep at most; beyond it the least likely knees are given up. ``None`` keeps all
            that may still become the knee.
        stopping_threshold: Stop as soon as the metric is as good as this, and keep these weights.
        divergence_threshold: Stop as soon as the metric is worse than this.
        check_on_train_epoch_end: As of `EarlyStopping`; can only be false.
        **knee: When to stop, the fields of `KneeRule`: ``patience=10`` (T of the paper), ``rule="smoothed"``,
            ``wait``, ``curve``, ``confirm``, ``min_points``, ``min_delta``, ``check_finite``, ``max_risk``,
            ``min_gain``, ``horizon``.

    Attributes:
        knee_epoch: The knee as seen at the last validation; a fraction if validation runs within epochs. After the
            fit that of the weights in `knee_path`.
        knee_value: The fitted value there.
        knee_path: Checkpoint of the knee; also `best_model_path`, and further attributes of `ModelCheckpoint`.
        stopping_reason: One sentence on why training ended.
        points: `(epoch, value)` of the validations so far.

    Raises:
        ValueError: If an argument is out of range.
        MisconfigurationException: If the Trainer runs no validation.
        RuntimeError: If the metric is not logged (with `strict`).

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.3. The paper holds the learning rate
        constant while a curve is fitted; a rate that changes gets a warning.

    Example:
        >>> stopping = KneeStopping("val/accuracy", mode="max", patience=10)
        >>> stopping.knee_epoch is None
        True
    """

    _owns_folder = False
    """Whether nobody else writes into the folder, an earlier fit of the same training apart."""

    def __init__(
        self,
        monitor: str,
        *,
        mode: Mode | None = None,
        rival: float | None = None,
        initial_value: float | None = None,
        strict: bool = True,
        verbose: bool = False,
        dirpath: str | os.PathLike[str] | None = None,
        save_weights_only: bool = False,
        max_checkpoints: int | None = MAX_CHECKPOINTS,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        **knee: Any,
    ) -> None:
        super().__init__()
        self._is_mode_given = mode is not None
        mode = "max" if mode is None else mode
        checked_choice("mode", mode, get_args(Mode))
        if check_on_train_epoch_end:
            raise ValueError(
                "`check_on_train_epoch_end` must be left out: `KneeStopping` looks at every validation, and at "
                "nothing else. Log the metric in `validation_step`."
            )
        checked_names("KneeStopping", knee, [field.name for field in fields(KneeRule)])
        self.rule = KneeRule(**knee)
        if max_checkpoints is not None and max_checkpoints < 1:
            raise ValueError(f"`max_checkpoints` must be at least 1, got {max_checkpoints!r}.")
        self.monitor = monitor
        self.mode: Mode = mode
        self.initial_value = initial_value
        self.strict = strict
        self.verbose = verbose
        self.dirpath = dirpath
        self.save_weights_only = save_weights_only
        self.rival = rival
        self.max_checkpoints = max_checkpoints
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self._warned: set[str] = set()
        self._reset()

    def _reset(self, folder: str = "") -> None:
        """Forget an earlier fit; a resumed one is told afterwards what it was."""
        self._kept = KeptCheckpoints(folder, is_exclusive=self._owns_folder)
        self.knee_epoch: float | None = None
        self.knee_value: float | None = None
        self.stopping_reason: str | None = None
        self._points: list[Point] = []
        self._unsaved: float | None = None
        self._rates: list[float] | None = None
        self._metric = MonitoredMetric(self.monitor, is_strict=self.strict)
        self._decided: tuple[int, KneeDecision] | None = None
        self._best_model_path: str | None = None

    @property
    def points(self) -> tuple[Point, ...]:
        """Epoch and value of the validations so far."""
        return tuple(self._points)

    @property
    def knee_path(self) -> str | None:
        """Checkpoint of the knee, or of the nearest epoch whose checkpoint is there."""
        knee = self.knee_epoch
        if knee is None or not self._kept.paths:
            return None
        return self._kept.paths[self._kept.nearest(knee)]

    # What Lightning and its loggers know of a checkpoint callback

    @property
    def best_model_path(self) -> str:
        """What Lightning loads for ``ckpt_path="best"``: the knee."""
        return self.knee_path or "" if self._best_model_path is None else self._best_model_path

    @best_model_path.setter
    def best_model_path(self, path: str) -> None:
        """Is set by strategies whose fit runs in other processes, after it."""
        self._best_model_path = path

    @property
    def best_model_score(self) -> Tensor | None:
        """The fitted value of the knee."""
        return None if self.knee_value is None else torch.tensor(self.knee_value)

    @property
    def last_model_path(self) -> str:
        """The youngest checkpoint."""
        paths = self._kept.paths
        return paths[max(paths)] if paths else ""

    @property
    def current_score(self) -> Tensor | None:
        """The value of the last validation."""
        value = self._points[-1][1] if self._points else None
        return None if value is None else torch.tensor(value)

    @property
    def best_k_models(self) -> dict[str, Tensor]:
        """Path and value of every checkpoint that may still become the knee."""
        values = dict(self._points)
        return {path: torch.tensor(_or_nan(values.get(epoch))) for epoch, path in self._kept.paths.items()}

    @property
    def save_top_k(self) -> int:
        """How many are kept at the end; so loggers take the best, not every one."""
        return 1

    @property
    @override
    def state_key(self) -> str:
        return state_key(self, monitor=self.monitor, mode=self.mode)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "points": [list(point) for point in self._points],
            "kept": [[epoch, path] for epoch, path in self._kept.paths.items()],
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Points of an earlier version have a step, too.
        self._points = [(point[0], point[-1]) for point in state_dict["points"]]
        self._kept.restore(state_dict["kept"])

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset(checkpoint_folder(trainer, self.dirpath))
            if not self._owns_folder:
                tell_role(trainer, self)
            if not self._is_mode_given and sounds_lower(self.monitor):
                self._warn_once(
                    "mode",
                    f"{self.monitor!r} sounds as if lower were better, and `KneeStopping` takes higher for better "
                    '(`mode="max"`). Give `mode`.',
                )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_dry(trainer):
            return
        if not trainer.enable_validation:
            raise MisconfigurationException(
                f"`KneeStopping` must see validations to follow {self.monitor!r}, got a Trainer that runs none. "
                "Define `validation_step` and a validation dataloader, and leave `limit_val_batches` above 0."
            )
        if not self._points and self.initial_value is not None:
            self._points.append((0, self.initial_value))
            self._save(trainer, 0)
        if self._points:  # resumed: what ended training then must end it now, Lightning does not remember it
            self._apply(trainer, self._decide(trainer))

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or _is_dry(trainer):
            return
        value = self._metric.read(trainer)
        if value is None:
            return
        self._warn_of_changed_rate(trainer)
        epoch = self._epoch(trainer)
        finite = value if math.isfinite(value) else None
        self._points = [*(point for point in self._points if point[0] < epoch), (epoch, finite)]
        self._decided = None
        decision = self._decide(trainer)
        # A checkpoint of a whole epoch is taken at its very end, from where Lightning resumes without repeating hooks.
        if is_last_batch(trainer):
            self._unsaved = epoch
        else:
            self._save(trainer, epoch)
            self._kept.keep(trainer, self._worth_keeping(decision, epoch))
        self._apply(trainer, decision)
        self._log(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._unsaved is not None:
            epoch, self._unsaved = self._unsaved, None
            self._save(trainer, epoch)
            self._kept.keep(trainer, self._worth_keeping(self._decide(trainer), epoch))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Not `on_train_end`: Lightning skips it where a fit is resumed that had reached `max_epochs` already.
        if _is_dry(trainer) or not self._points:
            return
        decision = self._decide(trainer)
        self.knee_epoch, self.knee_value = decision.knee_epoch, decision.knee_value
        values = [value for epoch, value in self._points if epoch > 0 and value is not None]
        if not self._is_mode_given and falls(values):
            self._warn_once(
                "mode",
                f"{self.monitor!r} was best at its first validation. `KneeStopping` took higher for better "
                '(`mode="max"`); give `mode` if it should not have.',
            )
        if self.stopping_reason is None:
            last = self._points[-1][0]
            self.stopping_reason = (
                f"Training ended at epoch {last:g} before a knee of {self.monitor} was found; "
                f"the best epoch so far is {number(self.knee_epoch)} ({number(self.knee_value)})."
            )
        rank_zero_info(self.stopping_reason)
        paths = self._kept.paths
        if self.knee_epoch is not None and paths:
            nearest = self._kept.nearest(self.knee_epoch)
            if nearest != self.knee_epoch:  # its own checkpoint is not there
                self.stopping_reason += f" Its checkpoint was given up for others; that of epoch {nearest:g} is kept."
                self.knee_epoch = nearest
                self.knee_value = (
                    dict(self._points).get(nearest) if decision.fit is None else _fitted(decision, nearest)
                )
            # Without a stop by the rule someone may want to train on from the last epoch.
            self._kept.keep(trainer, {nearest} if decision.stop else {nearest, max(paths)})

    def _epoch(self, trainer: Trainer) -> float:
        """How many epochs have been trained at this validation."""
        num_batches = trainer.num_training_batches
        if math.isinf(num_batches):  # a stream: each validation ends an epoch
            return self._points[-1][0] + 1 if self._points else 1
        done = trainer.current_epoch + num_batches_done(trainer) / num_batches
        return int(done) if float(done).is_integer() else round(done, 6)

    def _decide(self, trainer: Trainer) -> KneeDecision:
        """The rule's decision, made by rank 0 for all."""
        if self._decided is not None and self._decided[0] == len(self._points):
            return self._decided[1]
        decision = self._decision() if trainer.is_global_zero else None
        agreed = trainer.strategy.broadcast(decision)
        assert agreed is not None
        self._decided = len(self._points), agreed
        return agreed

    def _decision(self) -> KneeDecision:
        decision = self.rule.decide(self.points, self.mode, rival=self.rival)
        epoch, value = self._points[-1]
        if value is not None and is_beyond(value, self.stopping_threshold, self.mode, is_better=True):
            return replace(decision, stop=True, knee_epoch=epoch, knee_value=value, fit=None, plausible=(epoch,))
        return decision

    def _apply(self, trainer: Trainer, decision: KneeDecision) -> None:
        self.knee_epoch, self.knee_value = decision.knee_epoch, decision.knee_value
        # Derived anew each time: a stop asked for below `min_epochs` must not stay asked for.
        epoch, value = self._points[-1]
        if epoch >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0):
            reason = reason_to_stop(
                decision,
                (epoch, value),
                rule=self.rule,
                monitor=self.monitor,
                mode=self.mode,
                rival=self.rival,
                stopping_threshold=self.stopping_threshold,
                divergence_threshold=self.divergence_threshold,
            )
            if reason is not None:
                trainer.should_stop, self.stopping_reason = True, reason
        if self.verbose:
            rank_zero_info(
                f"Epoch {epoch:g}: {self.monitor} = {number(value)}, "
                f"knee at epoch {number(decision.knee_epoch)} ({number(decision.knee_value)})."
            )

    def _log(self, trainer: Trainer) -> None:
        if self.knee_epoch is None or self.knee_value is None:
            return
        for logger in trainer.loggers:
            logger.log_metrics(
                {"knee/epoch": float(self.knee_epoch), "knee/value": self.knee_value}, step=logging_step(trainer)
            )

    def _save(self, trainer: Trainer, epoch: float) -> None:
        self._kept.save(trainer, epoch, weights_only=self.save_weights_only)
        tell_loggers(trainer, self)

    def _worth_keeping(self, decision: KneeDecision, last: float) -> set[float]:
        """The likeliest knees, and the last epoch, from which a resumed training goes on."""
        others = [epoch for epoch in decision.plausible if epoch != last]
        return {*(others if self.max_checkpoints is None else others[: self.max_checkpoints - 1]), last}

    def _warn_of_changed_rate(self, trainer: Trainer) -> None:
        rates = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
        message = None if self._rates is None else self._message_of_rates(self._rates, rates)
        if message is not None:
            self._warn_once("rate", message)
        self._rates = rates

    def _message_of_rates(self, before: list[float], rates: list[float]) -> str | None:
        """What to say of the learning rates of two validations."""
        if rates == before:
            return None
        return (
            f"The learning rate changed from {before} to {rates} while `KneeStopping` fits one curve. "
            "The rule holds within a constant rate: a drop makes a second rise, which the curve cannot follow."
        )

    def _warn_once(self, topic: str, message: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            rank_zero_warn(message)


def _fitted(decision: KneeDecision, epoch: float) -> float:
    assert decision.fit is not None
    return float(decision.fit.predict([epoch])[0])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _is_dry(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))
