"""One edge: fine-tune the parent state's weights under the child state's setting, up to the knee.

An edge is a pure job: from its description alone it makes a value, a knee and weights, and everything it writes is in
a folder of its own. Started again after a kill, it goes on from its last epoch; after its end, it only returns its
result.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_warn
from typing_extensions import override

from lightning_opplan.callbacks import KneeStopping
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, Setting
from lightning_opplan.planning.hand_tuned import FixedStage
from lightning_opplan.planning.knee import ValueKind
from lightning_opplan.planning.search import EdgeOutcome
from lightning_opplan.tuner.fixed_epochs import FixedEpochs
from lightning_opplan.tuner.meter import Meter
from lightning_opplan.tuner.ranks import Ranks, finish_loggers
from lightning_opplan.tuner.recipe import Experiment, Recipe
from lightning_opplan.tuner.seeding import EpochSeed, derived_seed, seed_all

__all__ = [
    "MAX_CHECKPOINTS",
    "EdgeJob",
    "EpochListener",
    "check_trainer",
    "claim_folder",
    "drop_watching",
    "file_checksum",
    "fit",
    "hushed",
    "load_weights",
    "newest_checkpoint",
    "quiet",
    "run_edge",
    "save_weights",
    "write_json",
]

EpochListener = Callable[[Edge, float, float | None, float | None], None]
"""Called after every validation with the edge, the epoch, the value, and the knee as it is seen now."""

_OUTCOME: Final = "outcome.json"
_RESUME: Final = "resume"
MAX_CHECKPOINTS: Final = 20
"""Checkpoints that a running edge keeps at most, so that the disk space of a search is known beforehand."""


@dataclass(frozen=True, kw_only=True)
class EdgeJob:
    """The description of an edge.

    Attributes:
        edge: Parent and child state.
        setting: The child state's setting.
        parent_weights: File of the parent's weights; ``None`` for an edge from the start.
        start_value: y₀ of an edge from the start; ``None`` for the default.
        monitor: Metric to follow.
        mode: Whether a higher or a lower value of it is better.
        knee: Arguments of `KneeStopping`.
        rival: A value to reach, or be given up.
        value: What the edge's value is: that of the fitted curve at the knee, or the validation there.
        max_epochs: Epochs to train at most, beside what the Trainer says.
        stage: Epochs and decay of a hand-tuned training, in place of the knee.
        devices: Devices to train on, if not those of the Trainer.
        accumulate: Times as many batches to accumulate, as there are fewer devices than the Trainer was meant for.
        num_threads: Threads of torch on the CPU; ``None`` leaves them as they are.
        seed: Seed of the plan.
        plan: Fingerprint of the plan; what another plan left in the folder is no use.
        folder: Where the edge writes.
    """

    edge: Edge
    setting: Setting
    parent_weights: str | None
    start_value: float | None
    monitor: str
    mode: Mode
    knee: Mapping[str, Any] = field(default_factory=dict)
    rival: float | None = None
    value: ValueKind = "fitted"
    max_epochs: int | None = None
    stage: FixedStage | None = None
    devices: int | None = None
    accumulate: int = 1
    num_threads: int | None = None
    seed: int
    plan: str
    folder: str

    @property
    def edge_seed(self) -> int:
        """The seed of this edge."""
        return derived_seed(self.seed, *self.edge)

    @property
    def weights(self) -> str:
        """File of the knee's weights."""
        return os.path.join(self.folder, "weights.ckpt")


def run_edge(job: EdgeJob, recipe: Recipe, ranks: Ranks, listener: EpochListener | None = None) -> EdgeOutcome:
    """Run an edge to its end, or return what it came to if it has ended before.

    Args:
        job: The edge.
        recipe: Makes the experiment.
        ranks: The processes; all of them call this.
        listener: Is told of every validation, on the first rank.

    Raises:
        RuntimeError: If the metric is not logged, or no validation was run.
        ValueError: If the Trainer does not pass on its callbacks, or the parent's weights do not fit the model.
        KeyboardInterrupt: If training was interrupted.
    """
    ranks.decide(lambda: claim_folder(job))
    known = ranks.decide(lambda: _known_outcome(job))
    if known is not None:
        return known
    if job.num_threads is not None:
        torch.set_num_threads(job.num_threads)
    checkpoints = os.path.join(job.folder, _RESUME)  # apart from what callbacks of the user's write
    resume = ranks.decide(lambda: newest_checkpoint(checkpoints))
    first_epoch = 0 if resume is None else resume[1]

    seed_all(derived_seed(job.edge_seed, "build"))
    stopping = _stopping(job, checkpoints)
    meter = Meter()
    callbacks = [
        EpochSeed(job.edge_seed, first_epoch=first_epoch),
        meter,
        stopping,
        _Listen(job.edge, stopping, listener),
    ]
    experiment = recipe.build(job.setting, callbacks=callbacks, folder=job.folder, devices=job.devices)
    trainer, model = experiment.trainer, experiment.model
    check_trainer(trainer, callbacks)
    trainer.accumulate_grad_batches *= job.accumulate
    _limit_epochs(trainer, job)
    ranks.adopt(trainer)
    quiet(trainer)
    if job.parent_weights is not None:
        load_weights(model, job.parent_weights)
    if resume is None and isinstance(stopping, KneeStopping):
        stopping.initial_value = _initial_value(job, experiment)
    fit(experiment, None if resume is None else resume[0])
    if not stopping.points:
        raise RuntimeError(f"The training of {job.edge} ended without a validation: no batch, or no epoch, was run.")

    def finish() -> EdgeOutcome:
        knee_path = stopping.knee_path if stopping.knee_value is not None else None
        details = {"stopping_reason": stopping.stopping_reason, **meter.details(trainer)}
        if knee_path is not None:
            details["sha256"] = save_weights(knee_path, job.weights)
        value, standard_error = stopping.valued(job.value)
        outcome = EdgeOutcome(
            edge=job.edge,
            value=value,
            knee_epoch=stopping.knee_epoch or 0,
            epochs_run=stopping.points[-1][0],
            curve=stopping.points,
            seconds=meter.seconds,
            weights=None if knee_path is None else os.path.basename(job.weights),
            standard_error=standard_error,
            details=details,
        )
        write_json(Path(job.folder, _OUTCOME), {**asdict(outcome), "edge": list(outcome.edge)})
        shutil.rmtree(checkpoints, ignore_errors=True)
        return outcome

    return ranks.decide(finish)


def _stopping(job: EdgeJob, checkpoints: str) -> KneeStopping | FixedEpochs:
    """What ends the training of an edge and keeps its weights."""
    if job.stage is not None:
        return FixedEpochs(job.monitor, dirpath=checkpoints, stage=job.stage)
    return KneeStopping(
        job.monitor, mode=job.mode, dirpath=checkpoints, rival=job.rival, max_checkpoints=MAX_CHECKPOINTS, **job.knee
    )


def _limit_epochs(trainer: Trainer, job: EdgeJob) -> None:
    loop = trainer.fit_loop
    if job.stage is not None:
        loop.max_epochs, loop.min_epochs = job.stage.epochs, None
        # Validated at its end alone, so there is nothing for callbacks that watch metrics.
        trainer.check_val_every_n_epoch, trainer.val_check_interval = job.stage.epochs, 1.0
        drop_watching(trainer, keep=FixedEpochs)
    elif job.max_epochs is not None:
        given = loop.max_epochs
        loop.max_epochs = job.max_epochs if given is None or given < 0 else min(given, job.max_epochs)


def fit(experiment: Experiment, ckpt_path: str | None) -> None:
    """Fit, and let an interruption through as what it was; Lightning turns Ctrl-C into an exit of status 1."""
    try:
        experiment.trainer.fit(experiment.model, experiment.data, ckpt_path=ckpt_path)
    except SIGTERMException:
        raise
    except SystemExit:
        raise KeyboardInterrupt from None
    finish_loggers(experiment.trainer)


def drop_watching(trainer: Trainer, *, keep: type[Callback] | None = None) -> None:
    """Remove the callbacks that watch a metric, from a training without validation."""
    for callback in [c for c in trainer.callbacks if getattr(c, "monitor", None) is not None]:  # type: ignore[attr-defined]
        if keep is None or not isinstance(callback, keep):
            trainer.callbacks.remove(callback)  # type: ignore[attr-defined]


def newest_checkpoint(folder: str) -> tuple[str, int] | None:
    """Return the newest whole-epoch checkpoint that can be loaded, and the epoch (from 0) that follows it.

    From within an epoch Lightning goes on with a loader that is shuffled anew: not the same run any more.
    What cannot be loaded is deleted, as is what a kill left half written.

    Raises:
        ValueError: If a checkpoint is whole, but holds objects that are not loaded for safety.
    """
    for leftover in Path(folder).glob("*.tmp"):
        leftover.unlink()
    candidates = sorted(Path(folder).glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in candidates:
        try:
            progress = torch.load(file, map_location="cpu", weights_only=True)["loops"]["fit_loop"]["epoch_progress"]
            if progress["current"]["processed"] == progress["current"]["started"]:
                return str(file), int(progress["current"]["processed"])
        except Exception as error:
            if "Unsupported" in str(error):
                raise ValueError(
                    f"{file} holds objects that are not loaded for safety. Keep hyper-parameters and the state of "
                    f"callbacks to plain Python and tensors. {' '.join(str(error).split())}"
                ) from error
            rank_zero_warn(f"{file} cannot be loaded ({type(error).__name__}); training goes on from an earlier one.")
            file.unlink()
    return None


def save_weights(checkpoint: str, target: str) -> str:
    """Reduce a checkpoint to what `load_from_checkpoint` and a test's `ckpt_path` need; written whole or not.

    Returns:
        The checksum of the file.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for training_state in ("callbacks", "optimizer_states", "lr_schedulers", "loops"):
        content.pop(training_state, None)
    temporary = target + ".tmp"
    with open(temporary, "wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    checksum = file_checksum(temporary)
    os.replace(temporary, target)
    return checksum


def file_checksum(file: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(model: LightningModule, file: str) -> None:
    """Load the weights of a checkpoint and nothing else: its hyper-parameters are those of another state.

    Raises:
        ValueError: If they do not fit the model.
    """
    model.configure_model()
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights of one state must fit the model of the next, but {file} does not. "
            "A setting must not change the shape of the network, and the model must build its layers in `__init__` "
            f"or `configure_model`. {reason}"
        ) from error


def quiet(trainer: Trainer) -> None:
    """Leave the terminal to the search, and sanity to its first validation."""
    trainer.num_sanity_val_steps = 0
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.disable()
    for summary in [callback for callback in trainer.callbacks if isinstance(callback, ModelSummary)]:  # type: ignore[attr-defined]
        trainer.callbacks.remove(summary)  # type: ignore[attr-defined]


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Lightning from announcing every Trainer; its warnings still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.level, logging.WARNING))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _initial_value(job: EdgeJob, experiment: Experiment) -> float | None:
    """Measure y₀, the value of the weights before the first epoch.

    An untrained classifier is worth 0 in the paper; so is one here unless the metric is negative or is to fall.
    """
    untrained = job.edge.parent == START
    if untrained and job.start_value is not None:
        return job.start_value
    trainer = experiment.trainer
    # Metrics that are reset in inference mode could not be updated in the fit, which validates without it.
    trainer.validate_loop.inference_mode = False
    trainer.validate(experiment.model, experiment.data, verbose=False)
    metric = trainer.callback_metrics.get(job.monitor)
    if metric is None:
        return None  # `KneeStopping` says what is wrong at the first validation of the fit
    value = float(trainer.strategy.broadcast(float(metric)))
    if untrained and job.mode == "max" and value >= 0:
        return 0.0
    return value if math.isfinite(value) else None


def claim_folder(job: EdgeJob) -> None:
    """Mark the folder as the plan's, and empty it if it was another's."""
    folder, mark = Path(job.folder), Path(job.folder, "plan.json")
    for leftover in folder.glob("*.tmp"):
        leftover.unlink()
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == {"plan": job.plan}:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(mark, {"plan": job.plan})


def _known_outcome(job: EdgeJob) -> EdgeOutcome | None:
    file = Path(job.folder, _OUTCOME)
    if not file.is_file():
        return None
    shutil.rmtree(Path(job.folder, _RESUME), ignore_errors=True)  # a kill may have come before it was removed
    content = json.loads(file.read_text(encoding="utf-8"))
    curve = tuple((epoch, value) for epoch, value in content["curve"])
    return EdgeOutcome(**{**content, "edge": Edge(*content["edge"]), "curve": curve})


def check_trainer(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Refuse a Trainer that would not train as asked, before it does."""
    present = getattr(trainer, "callbacks", [])
    if not all(callback in present for callback in callbacks):
        raise ValueError(
            "`trainer` must pass on `callbacks`, got a Trainer without them. "
            "Write `lambda callbacks, **kw: Trainer(callbacks=[*callbacks, …], **kw)`."
        )
    if getattr(trainer, "fast_dev_run", False):
        raise ValueError(
            "`fast_dev_run` must be off for a plan or a path: it trains no epoch. Set `max_epochs` instead."
        )


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all, and be sure that it is on the disk."""
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(content, stream, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


class _Listen(Callback):
    """Pass every validation on."""

    def __init__(self, edge: Edge, stopping: KneeStopping | FixedEpochs, listener: EpochListener | None) -> None:
        self.edge, self.stopping, self.listener = edge, stopping, listener

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.listener is not None and trainer.is_global_zero and self.stopping.points:
            epoch, value = self.stopping.points[-1]
            self.listener(self.edge, epoch, value, self.stopping.knee_epoch)
