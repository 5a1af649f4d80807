"""Train along a path: every state for its epochs, from the weights of the one before."""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_opplan.planning.graph import Setting
from lightning_opplan.planning.messages import first_difference
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.reporting import FollowDisplay
from lightning_opplan.tuner.edge import (
    check_trainer,
    drop_watching,
    fit,
    hushed,
    load_weights,
    newest_checkpoint,
    quiet,
    save_weights,
    write_json,
)
from lightning_opplan.tuner.fixed_epochs import LastEpoch
from lightning_opplan.tuner.ranks import Ranks
from lightning_opplan.tuner.recipe import Recipe
from lightning_opplan.tuner.seeding import EpochSeed, derived_seed, seed_all

__all__ = ["follow_path"]


def follow_path(
    path: OptimizationPath,
    recipe: Recipe,
    *,
    dirpath: str | os.PathLike[str],
    setting: Setting | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Train along a path, without validation, and return the file of the final weights.

    Called again after an interruption, it goes on from the last epoch; after its end, it trains nothing.

    Args:
        path: The path.
        recipe: Makes the experiment of each state.
        dirpath: Local folder for weights and logs.
        setting: Goes on top of every state's own: the place to add the validation set to the training set.
        seed: Seed of everything random.
        progress: Show where the training is.

    Raises:
        ValueError: If the path has no epochs, a setting has an unknown key, or the folder holds the training along
            another path.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.1: the final model is trained on the
        whole training set.
    """
    folder = Path(dirpath).absolute()
    if path.total_epochs == 0:
        raise ValueError(f"`path` must train for at least one epoch, got {path}.")
    settings = [{**step.setting, **(setting or {})} for step in path.steps]
    with hushed():
        recipe.check(settings)
        ranks = Ranks(recipe.build_trainer(str(folder)))
        ranks.decide(lambda: _claim(folder, path, settings, {"seed": seed, **recipe.describe()}))
        weights: str | None = None
        with FollowDisplay(path, enabled=progress and ranks.is_first) as display:
            for number, (step, values) in enumerate(zip(path.steps, settings, strict=True), start=1):
                names = re.sub(r"[^\w.+-]+", ".", step.state)
                place = folder / f"{number:02d}_{names}"
                weights = _train_step(step, values, weights, place, recipe, ranks, seed, display)
        final = folder / "weights.ckpt"
        ranks.decide(lambda: _publish(weights, final))
        ranks.barrier()
    return final


def _train_step(
    step: PathStep,
    setting: Setting,
    weights: str | None,
    folder: Path,
    recipe: Recipe,
    ranks: Ranks,
    seed: int,
    display: FollowDisplay,
) -> str | None:
    result = str(folder / "weights.ckpt")
    display.start(step)
    if step.epochs == 0:
        return weights
    if ranks.decide(lambda: os.path.exists(result)):
        return result
    checkpoints = folder / "resume"
    resume = ranks.decide(lambda: newest_checkpoint(str(checkpoints)))
    step_seed = derived_seed(seed, "follow", folder.name)
    seed_all(derived_seed(step_seed, "build"))
    last = LastEpoch(str(checkpoints))
    callbacks: list[Callback] = [
        EpochSeed(step_seed, first_epoch=0 if resume is None else resume[1]),
        _StopAfter(step.epochs),
        _Tell(display),
        last,
    ]
    experiment = recipe.build(setting, callbacks=callbacks, folder=str(folder))
    trainer, model = experiment.trainer, experiment.model
    check_trainer(trainer, callbacks)
    ranks.adopt(trainer)
    quiet(trainer)
    # There is no validation, so nothing for callbacks that watch its metrics.
    drop_watching(trainer)
    trainer.limit_val_batches = 0
    trainer.fit_loop.max_epochs, trainer.fit_loop.min_epochs = math.ceil(step.epochs), None
    if weights is not None:
        load_weights(model, weights)
    fit(experiment, None if resume is None else resume[0])

    def finish() -> None:
        save_weights(last.path, result)
        shutil.rmtree(checkpoints, ignore_errors=True)

    ranks.decide(finish)
    return result


def _claim(folder: Path, path: OptimizationPath, settings: Sequence[Setting], experiment: Mapping[str, Any]) -> None:
    """Keep a copy of what is followed here, and how, and refuse to mix it with anything else."""
    steps = [
        PathStep(state=step.state, epochs=step.epochs, setting=setting)
        for step, setting in zip(path.steps, settings, strict=True)
    ]
    followed = OptimizationPath(steps=tuple(steps), monitor=path.monitor, mode=path.mode)
    file = folder / "followed.yaml"
    if file.is_file() and OptimizationPath.load(file).to_dict() != followed.to_dict():
        raise ValueError(
            f"`dirpath` must be a new folder for another path, got {str(folder)!r}, which holds the training along "
            f"{OptimizationPath.load(file)}. Choose another folder, or delete this one."
        )
    followed.save(file)
    given = json.loads(json.dumps(experiment, default=str))
    record = folder / "experiment.json"
    if record.is_file():
        difference = first_difference(json.loads(record.read_text(encoding="utf-8")), given)
        if difference:
            raise ValueError(
                f"`dirpath` must be a new folder for another configuration, got {str(folder)!r}, where {difference}. "
                "Choose another folder, or delete this one."
            )
    write_json(record, given)


def _publish(weights: str | None, final: Path) -> None:
    assert weights is not None
    temporary = final.with_name(final.name + ".tmp")
    shutil.copyfile(weights, temporary)
    os.replace(temporary, final)


class _StopAfter(Callback):
    """End training after some epochs, which may be a fraction."""

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
        if done >= self.epochs - 1e-6:
            trainer.should_stop = True


class _Tell(Callback):
    def __init__(self, display: FollowDisplay) -> None:
        self.display = display

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.display.epoch(trainer.current_epoch + 1)
