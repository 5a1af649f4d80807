"""Train along a path: every state for its epochs, from the weights of the one before."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_opplan.files import file_name, replacing, write_json
from lightning_opplan.messages import first_difference
from lightning_opplan.planning.graph import Setting
from lightning_opplan.planning.path import OptimizationPath, PathStep, plain_setting, stages_of
from lightning_opplan.planning.schedule import FixedStage
from lightning_opplan.reporting import FollowDisplay
from lightning_opplan.tuner.edges.checkpoints import save_weights
from lightning_opplan.tuner.edges.fixed import ForEpochs
from lightning_opplan.tuner.edges.folder import TrainingFolder
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.job import Training
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.runs import RunName
from lightning_opplan.tuner.edges.seeding import derived_seed
from lightning_opplan.tuner.edges.training import train
from lightning_opplan.tuner.search_log import family_of

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
    settings = [{**plain_setting(step.setting), **(setting or {})} for step in path.steps]
    stages = stages_of(path)
    with hushed():
        recipe.check(settings)
        ranks = Ranks(recipe.build_trainer(str(folder)))
        ranks.decide(lambda: _claim(folder, path, settings, {"seed": seed, **recipe.describe()}))
        weights: str | None = None
        with FollowDisplay(path, enabled=progress and ranks.is_first) as display:
            for number, (step, values, stage) in enumerate(zip(path.steps, settings, stages, strict=True), start=1):
                place = TrainingFolder(folder / f"{number:02d}_{file_name(step.state).replace('#', '.')}")
                training = Training(
                    setting=values,
                    weights=weights,
                    seed=derived_seed(seed, "follow", place.path.name),
                    averaging=path.averaging,
                    folder=place,
                    run=RunName(
                        group=family_of(folder),
                        name=f"follow: {step.state}",
                        tags={"kind": "follow", "state": step.state},
                    ),
                )
                display.start(step)
                if step.epochs > 0:
                    weights = _train(training, stage, recipe, ranks, display)
        final = folder / "weights.ckpt"
        ranks.decide(lambda: _publish(weights, final))
        ranks.barrier()
    return final


def _train(training: Training, stage: FixedStage, recipe: Recipe, ranks: Ranks, display: FollowDisplay) -> str:
    """Train one state; returns the file of the weights after it."""
    folder = training.folder
    if not ranks.decide(folder.weights.exists):
        rate_factor = None if stage.is_constant else stage.rate_factor
        stopping = ForEpochs(stage.epochs, dirpath=folder.resume, rate_factor=rate_factor)
        train(training, recipe, ranks, stopping, callbacks=[_Tell(display)])
        ranks.decide(lambda: _keep(stopping, folder))
    return str(folder.weights)


def _keep(stopping: ForEpochs, folder: TrainingFolder) -> None:
    save_weights(stopping.path, folder.weights)
    folder.clear()


def _is_same(known: OptimizationPath, followed: OptimizationPath) -> bool:
    """Whether two paths are one; that of an earlier version lacks what a state says of its own rate."""
    if known.to_dict() == followed.to_dict():
        return True
    steps = tuple(replace(step, setting=plain_setting(step.setting)) for step in followed.steps)
    return known.to_dict() == replace(followed, steps=steps).to_dict()


def _claim(folder: Path, path: OptimizationPath, settings: Sequence[Setting], experiment: Mapping[str, Any]) -> None:
    """Keep a copy of what is followed here, and how, and refuse to mix it with anything else."""
    steps = [
        PathStep(state=step.state, epochs=step.epochs, setting={**step.setting, **setting})  # its own `anneal`, too
        for step, setting in zip(path.steps, settings, strict=True)
    ]
    followed = replace(path, steps=tuple(steps), is_complete=True)
    file = folder / "followed.yaml"
    if file.is_file() and not _is_same(OptimizationPath.load(file), followed):
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
    with replacing(final) as partial:
        shutil.copyfile(weights, partial)


class _Tell(Callback):
    def __init__(self, display: FollowDisplay) -> None:
        self.display = display

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.display.epoch(trainer.current_epoch + 1)
