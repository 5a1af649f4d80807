"""One edge: fine-tune the parent state's weights under the child state's setting, up to the knee.

An edge is a pure job: from its description alone it makes a value, a knee and weights, and everything it writes is in
a folder of its own. Started again after a kill, it goes on from its last epoch; after its end, it only returns its
result.
"""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.outcome import EdgeOutcome, Progress
from lightning_opplan.tuner.edges.checkpoints import save_weights
from lightning_opplan.tuner.edges.job import EdgeJob
from lightning_opplan.tuner.edges.meter import Meter
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.stopping import ForEpochs, UntilKnee
from lightning_opplan.tuner.edges.training import train

__all__ = ["EpochListener", "run_edge"]

EpochListener = Callable[[Edge, Progress], None]
"""Called after every epoch with the edge and how far it has come."""


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
    stopping = UntilKnee(job) if job.stage is None else _stage(job)
    meter = Meter()
    callbacks = [meter, *([] if listener is None else [_Listen(job.edge, stopping, listener)])]
    trainer = train(job.training, recipe, ranks, stopping, callbacks=callbacks)
    if not stopping.points and not stopping.trained().is_paused:
        raise RuntimeError(f"The training of {job.edge} ended without a validation: no batch, or no epoch, was run.")
    return ranks.decide(lambda: _outcome(job, stopping, meter, trainer))


def _stage(job: EdgeJob) -> ForEpochs:
    assert job.stage is not None
    return ForEpochs(
        job.stage.epochs,
        dirpath=job.folder.resume,
        monitor=job.monitor,
        rate_factor=None if job.stage.decay == "step" else job.stage.rate_factor,
    )


def _outcome(job: EdgeJob, stopping: UntilKnee | ForEpochs, meter: Meter, trainer: Trainer) -> EdgeOutcome:
    """What the edge came to; its weights are kept unless it is to go on."""
    trained = stopping.trained()
    checksum = None
    if trained.checkpoint is not None and not trained.is_paused:
        checksum = save_weights(trained.checkpoint, job.folder.weights)
    spent = meter.spent(trainer)
    outcome = EdgeOutcome(
        edge=job.edge,
        value=trained.value,
        knee_epoch=trained.epoch,
        epochs_run=trainer.current_epoch if trained.is_paused else trained.points[-1][0],
        curve=trained.points,
        seconds=meter.seconds,
        weights=None if checksum is None else job.folder.weights.name,
        standard_error=trained.standard_error,
        is_paused=trained.is_paused,
        stopping_reason=trained.reason,
        devices=spent.devices,
        num_samples=spent.num_samples,
        clip_frames=spent.clip_frames,
        sha256=checksum,
    )
    if not outcome.is_paused:
        job.folder.finish(outcome)
    return outcome


class _Listen(Callback):
    """Pass every epoch on."""

    def __init__(self, edge: Edge, stopping: UntilKnee | ForEpochs, listener: EpochListener) -> None:
        self.edge, self.stopping, self.listener = edge, stopping, listener

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.stopping.points:
            epoch, value = self.stopping.points[-1]
            self.listener(self.edge, (epoch, value, getattr(self.stopping, "knee_epoch", epoch)))
