"""One training: a fresh Trainer, model and data, some weights to begin with, and a resume after any interruption."""

import signal
from collections.abc import Sequence

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelSummary, Timer, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_opplan._lightning import callbacks_of, finish_loggers, remove_callbacks
from lightning_opplan.callbacks import GrowingWeightAveraging, KneeStopping
from lightning_opplan.tuner.edges.checkpoints import load_weights, newest_checkpoint
from lightning_opplan.tuner.edges.freshness import ensure_fresh
from lightning_opplan.tuner.edges.job import Training
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.recipe import RIGHT_FORM, Experiment, Recipe
from lightning_opplan.tuner.edges.runs import NameRuns, name_runs
from lightning_opplan.tuner.edges.seeding import EpochSeed, derived_seed, seed_all
from lightning_opplan.tuner.edges.stopping import Stopping

__all__ = ["fit", "notices", "quiet", "train"]


def train(
    training: Training,
    recipe: Recipe,
    ranks: Ranks,
    stopping: Stopping,
    *,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Train until it is to stop; started again after an interruption, go on from the last whole epoch.

    Args:
        training: What to train.
        recipe: Makes the experiment.
        ranks: The processes; all of them call this.
        stopping: Ends the training and keeps its checkpoints.
        callbacks: Further callbacks.

    Returns:
        The Trainer, after its fit.

    Raises:
        ValueError: If the Trainer does not pass on its callbacks, or the weights do not fit the model.
        KeyboardInterrupt: If training was interrupted.
    """
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    resume = ranks.decide(lambda: newest_checkpoint(training.folder.resume))
    seed_all(derived_seed(training.seed, "build"))
    seed = EpochSeed(training.seed, first_epoch=0 if resume is None else resume[1])
    averaging = [GrowingWeightAveraging()] if training.averaging else []
    names = [] if training.run is None else [NameRuns(training.run, training.setting, training.folder.path)]
    every = [seed, *names, *averaging, *callbacks, stopping]
    experiment = recipe.build(
        training.setting, callbacks=every, folder=str(training.folder.path), devices=training.devices
    )
    trainer = experiment.trainer
    _check_trainer(trainer, every)
    if averaging:
        _check_model(experiment.model)
    # Another one would end the training at its own knee.
    remove_callbacks(trainer, lambda other: isinstance(other, KneeStopping) and other is not stopping)
    ensure_fresh(experiment, every)
    if training.run is not None:
        name_runs(trainer.loggers, training.run, training.folder.path)
    trainer.accumulate_grad_batches *= training.accumulate
    ranks.adopt(trainer)
    quiet(trainer)
    stopping.prepare(trainer)
    if training.weights is not None:
        experiment.model.trainer = trainer  # the module's hook may look at it
        load_weights(experiment.model, training.weights, is_own=True)
    fit(experiment, None if resume is None else resume[0])
    return trainer


def fit(experiment: Experiment, ckpt_path: str | None = None) -> None:
    """Fit, and let an interruption through as what it was; Lightning turns Ctrl-C into an exit of status 1.

    Args:
        experiment: Model, data and Trainer.
        ckpt_path: A checkpoint that this package has written, to go on from.
    """
    try:
        experiment.trainer.fit(experiment.model, experiment.data, ckpt_path=ckpt_path, weights_only=False)
    except SIGTERMException:
        raise SIGTERMException(128 + signal.SIGTERM) from None  # Lightning would have the process end with status 0
    except SystemExit:
        raise KeyboardInterrupt from None
    finish_loggers(experiment.trainer.loggers)


def quiet(trainer: Trainer) -> None:
    """Leave the terminal to the search, and sanity to its first validation."""
    trainer.num_sanity_val_steps = 0
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.disable()
    remove_callbacks(trainer, lambda callback: isinstance(callback, ModelSummary))


def notices(trainer: Trainer) -> list[str]:
    """What to say of a Trainer's own callbacks before a search."""
    callbacks = callbacks_of(trainer)
    sentences = []
    if any(isinstance(callback, KneeStopping) for callback in callbacks):
        sentences.append("The Trainer's own `KneeStopping` is left out: a search stops its edges itself.")
    ending = [type(callback).__name__ for callback in callbacks if isinstance(callback, EarlyStopping | Timer)]
    sentences += [f"The Trainer's own `{name}` may end edges before their knee; leave it out." for name in ending]
    return sentences


def _check_model(model: LightningModule) -> None:
    """Refuse a module that averages weights, too."""
    made = model.configure_callbacks() if is_overridden("configure_callbacks", model) else []
    for callback in made if isinstance(made, Sequence) else [made]:
        if isinstance(callback, WeightAveraging):
            raise ValueError(
                "The model must leave averaging to the search, which averages weights itself, got "
                f"{type(callback).__name__}. Leave `ema_decay` out, or what else makes it."
            )


def _check_trainer(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Refuse a Trainer that would not train as asked, before it does."""
    if not all(callback in callbacks_of(trainer) for callback in callbacks):
        raise ValueError(f"`trainer` must pass on `callbacks`, got a Trainer without them. {RIGHT_FORM}")
    averaging = [callback for callback in callbacks_of(trainer) if isinstance(callback, WeightAveraging)]
    if len(averaging) > 1:
        raise ValueError(
            "`trainer` must leave averaging to the search, which averages weights itself, got "
            f"{type(averaging[0]).__name__}."
        )
    if getattr(trainer, "fast_dev_run", False):
        raise ValueError(
            "`fast_dev_run` must be off for a plan or a path: it trains no epoch. Set `max_epochs` instead."
        )
