"""One edge: fine-tune the parent state's weights under the child state's setting, up to the knee.

An edge is a pure job: from its description alone it makes a value, a knee and weights, and everything it writes is in
a folder of its own. Started again after a kill, it goes on from its last epoch; after its end, it only returns its
result.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.tuner.edges.chance import MeasureChance
from lightning_opplan.tuner.edges.checkpoints import is_finite, save_weights
from lightning_opplan.tuner.edges.fixed import ForEpochs
from lightning_opplan.tuner.edges.job import EdgeJob
from lightning_opplan.tuner.edges.meter import Meter
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.stopping import AsAsked, Stopping, UntilKnee
from lightning_opplan.tuner.edges.training import train

__all__ = ["EpochListener", "run_edge"]

EpochListener = Callable[[Edge, EdgeProgress], None]
"""Called as an edge begins, and after every epoch, with the edge and how far it has come."""


def run_edge(job: EdgeJob, recipe: Recipe, ranks: Ranks, listener: EpochListener | None = None) -> EdgeOutcome:
    """Run an edge to its end or its next pause, or return what it came to if it has ended before.

    Args:
        job: The edge.
        recipe: Makes the experiment.
        ranks: The processes; all of them call this.
        listener: Is told of every epoch, on the first rank.

    Raises:
        RuntimeError: If the metric is not logged, or no validation was run.
        ValueError: If the Trainer does not pass on its callbacks, or the parent's weights do not fit the model.
        KeyboardInterrupt: If training was interrupted.
    """
    ranks.decide(lambda: job.folder.claim(job.plan))
    known = ranks.decide(job.folder.known)
    if known is not None:
        return known
    stopping = _stopping(job)
    meter, chance = Meter(), MeasureChance(job.monitor)
    telling = _Tell(job, stopping, meter, listener)
    callbacks: list[Callback] = [meter, telling]
    if job.arm is not None and job.arm.measures_chance:
        callbacks.insert(0, chance)  # what it takes is not the price of an epoch
    if ranks.is_first:
        telling.begin()
    try:
        trainer = train(job.training, recipe, ranks, stopping, callbacks=callbacks)
    except BaseException:
        if ranks.is_first:
            telling.interrupt()
        raise
    has_value = any(epoch > 0 for epoch, _ in stopping.points) or (
        job.stage is not None and job.stage.value is not None
    )
    if not has_value and not stopping.trained().is_paused:
        raise RuntimeError(
            f"The training of {job.edge} ended without a validation: no batch or no epoch was run, or it ended before "
            "`check_val_every_n_epoch` or `val_check_interval` came to one."
        )
    return ranks.decide(lambda: _outcome(job, stopping, meter, chance, trainer))


def _stopping(job: EdgeJob) -> Stopping:
    if job.arm is not None:
        return AsAsked(job)
    stage = job.stage
    if stage is None:
        return UntilKnee(job)
    return ForEpochs(
        stage.epochs,
        dirpath=job.folder.resume,
        monitor=job.monitor if stage.value is None else None,
        rate_factor=None if stage.is_constant else stage.rate_factor,
        value=stage.value,
    )


def _outcome(job: EdgeJob, stopping: Stopping, meter: Meter, chance: MeasureChance, trainer: Trainer) -> EdgeOutcome:
    """What the edge came to; its weights are kept unless it is an edge that is to go on."""
    trained = stopping.trained()
    checkpoint, value, is_paused = trained.checkpoint, trained.value, trained.is_paused
    if checkpoint is not None and (job.arm is not None or job.stage is not None) and not is_finite(checkpoint):
        checkpoint, value, is_paused = None, None, False
    checksum = None
    if checkpoint is not None and (job.arm is not None or not is_paused):
        checksum = save_weights(checkpoint, job.folder.weights)
    if checksum is not None and job.arm is not None and job.arm.keeps_snapshots:
        job.folder.keep_snapshot(trainer.current_epoch)
    spent = meter.spent(trainer)
    outcome = EdgeOutcome(
        edge=job.edge,
        value=value,
        knee_epoch=trained.epoch,
        epochs_run=trained.points[-1][0] if trained.points and not trained.is_paused else _epochs(job, trainer),
        curve=trained.points,
        seconds=meter.seconds,
        start_seconds=meter.start_seconds,
        weights=None if checksum is None else job.folder.weights.name,
        standard_error=trained.standard_error,
        is_paused=is_paused,
        stopping_reason=trained.reason,
        devices=spent.devices,
        num_samples=spent.num_samples,
        clip_frames=spent.clip_frames,
        sha256=checksum,
        since=None if job.arm is None else job.arm.since,
        num_validation=spent.num_validation,
        unlearned=trained.unlearned if chance.value is None else chance.value,
    )
    if not outcome.is_paused:
        job.folder.finish(outcome)
    job.folder.end_of_progress()
    return outcome


def _epochs(job: EdgeJob, trainer: Trainer) -> float:
    return trainer.current_epoch if job.stage is None else job.stage.epochs


class _Tell(Callback):
    """Say after every epoch how far the edge has come: in its folder, and to a listener."""

    def __init__(self, job: EdgeJob, stopping: Stopping, meter: Meter, listener: EpochListener | None) -> None:
        self.job, self.stopping, self.meter, self.listener = job, stopping, meter, listener

    def begin(self) -> None:
        """The edge begins, or goes on: what is known of an earlier attempt stays until the first epoch is over."""
        before = self.job.folder.progress() or EdgeProgress(edge=self.job.edge)
        job, now = self.job, time.time()
        self._say(replace(before, plan=job.plan, until=job.until, updated=now, is_running=True))

    def interrupt(self) -> None:
        """The edge does not run any more, and has not come to its end."""
        last = self.job.folder.progress()
        if last is not None:
            self.job.folder.tell(last.interrupted())

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        points = self.stopping.points
        if not trainer.is_global_zero:
            return
        epoch, value = points[-1] if points else (trainer.current_epoch + 1, None)
        progress = EdgeProgress(
            edge=self.job.edge,
            plan=self.job.plan,
            epoch=epoch,
            value=value,
            knee=getattr(self.stopping, "knee_epoch", epoch),
            curve=points,
            until=self.job.until,
            seconds=self.meter.seconds,
            devices=trainer.world_size,
            updated=time.time(),
        )
        self._say(progress)

    def _say(self, progress: EdgeProgress) -> None:
        self.job.folder.tell(progress)
        if self.listener is not None:
            self.listener(self.job.edge, progress)
