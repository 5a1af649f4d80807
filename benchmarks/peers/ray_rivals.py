"""Rivals of Ray Tune: population-based training, and ASHA over random search.

One trial runs at a time, so that results do not depend on which of two is faster.
"""

import math
import os
import random
import tempfile
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune
from ray.tune import CheckpointConfig, ResultGrid, RunConfig, Stopper, TuneConfig, Tuner
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search.basic_variant import BasicVariantGenerator

from peers.tasks import TASKS, Setting, Task
from peers.training import Found, Segment, Segments, Shape, Weights, accuracy, train, training_seed

NUM_CPUS = 2
POPULATION = 8
ROUNDS = 20
RAY_OPTIONS = {
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # trainings of other rivals do not stand back, either
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no table and no TensorBoard file for each trial
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # rows are what is resumed, not runs
    "TUNE_WARN_THRESHOLD_S": "60",
}
Config = dict[str, Any]


class Ends(Stopper):
    """Count the epochs that trials report, and end each after some reports, or all once the budget is spent."""

    def __init__(self, budget: float, *, reports: float = math.inf) -> None:
        self.budget, self.reports, self.spent = budget, reports, 0

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        self.spent += result["num_epochs"]
        return result["training_iteration"] >= self.reports or self.stop_all()

    def stop_all(self) -> bool:
        return self.spent >= self.budget


def member_of_population(config: Config) -> None:
    """Train at a constant rate, and report with a checkpoint after every round."""
    torch.set_num_threads(1)
    task = TASKS[config["task"]].of(config["data_seed"])
    setting = chosen(task, config)
    content = latest()
    segments = list(content["segments"])
    weights = None if content["model"] is None else Weights(model=content["model"], optimizer=content["optimizer"])
    while True:
        seed = training_seed(config["seed"], 100 * config["member"] + len(segments))
        weights = train(task, setting, config["round"], "constant", seed, weights=weights)
        segments.append((dict(setting), config["round"]))
        report = {"accuracy": accuracy(task, weights.model), "num_epochs": config["round"]}
        save(report, model=weights.model, optimizer=weights.optimizer, segments=segments)


def trial_of_asha(config: Config) -> None:
    """Train to the end with a linear end of the rate, and report every epoch."""
    torch.set_num_threads(1)
    task = TASKS[config["task"]].of(config["data_seed"])
    setting, longest = chosen(task, config), config["longest"]

    def listen(epoch: int, value: float) -> None:
        if epoch < longest:
            tune.report({"accuracy": value, "num_epochs": 1})

    seed = training_seed(config["seed"], config["number"])
    weights = train(task, setting, longest, "linear end", seed, on_epoch=listen)
    segments = [(dict(setting), longest)]
    save({"accuracy": accuracy(task, weights.model), "num_epochs": 1}, model=weights.model, segments=segments)


def chosen(task: Task, config: Config) -> Setting:
    return task.setting(config["step"], config["rate"], config["decay"])


def save(report: Mapping[str, Any], **content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.save(content, Path(folder, "content.pt"))
        tune.report(dict(report), checkpoint=tune.Checkpoint.from_directory(folder))


def latest() -> dict[str, Any]:
    checkpoint = tune.get_checkpoint()
    return {"model": None, "segments": []} if checkpoint is None else content_of(checkpoint)


def content_of(checkpoint: tune.Checkpoint) -> dict[str, Any]:
    with checkpoint.as_directory() as folder:
        return torch.load(Path(folder, "content.pt"), weights_only=True)


def values(task: Task) -> dict[str, list[Any]]:
    return {"step": list(range(len(task.axis))), "rate": list(task.rates), "decay": list(task.decays)}


def space(task: Task, seed: int, **fixed: Any) -> Config:
    drawn = {name: tune.choice(options) for name, options in values(task).items()}
    return {"task": task.name, "data_seed": task.seed, "seed": seed, **drawn, **fixed}


def started() -> None:
    """Start Ray on this machine, once for all rows of a process."""
    if not ray.is_initialized():
        paths = filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
        os.environ.update({**RAY_OPTIONS, "PYTHONPATH": os.pathsep.join(paths)})  # inherited by Ray's processes
        ray.init(num_cpus=NUM_CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def tuned(
    trainable: Callable[[Config], None], config: Config, ends: Ends, seed: int, *, folder: str, **options: Any
) -> ResultGrid:
    """Run an experiment of Ray Tune."""
    started()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what the schedulers draw from
    search = BasicVariantGenerator(random_state=seed)
    return Tuner(
        tune.with_resources(trainable, {"cpu": NUM_CPUS}),
        param_space=config,
        tune_config=TuneConfig(metric="accuracy", mode="max", search_alg=search, reuse_actors=True, **options),
        run_config=RunConfig(
            storage_path=folder, stop=ends, verbose=0, checkpoint_config=CheckpointConfig(num_to_keep=2)
        ),
    ).fit()


def found(results: ResultGrid, ends: Ends, shape: Shape) -> Found:
    """The best of the trials that came to their end."""
    ended = [result for result in results if result.checkpoint is not None]
    best = max(ended, key=lambda result: result.metrics["accuracy"])
    content = content_of(best.checkpoint)
    runs = [(setting, list(run)) for setting, run in groupby(content["segments"], key=lambda segment: segment[0])]
    segments = [
        Segment(setting=setting, epochs=sum(epochs for _, epochs in run), shape=shape, goes_on=number > 0)
        for number, (setting, run) in enumerate(runs)
    ]
    return Found(
        model=content["model"],
        value=best.metrics["accuracy"],
        spent=ends.spent,
        schedule=Segments(segments=tuple(segments)),
    )


def population(task: Task, budget: float, seed: int) -> Found:
    """Population-based training: eight at a time, the worst quarter replaced after every round."""
    epochs = max(int(budget / POPULATION), 2)
    length = max(epochs // ROUNDS, min(2, epochs))
    ends = Ends(math.inf, reports=epochs // length)
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations=values(task), synch=True
    )
    config = space(task, seed, member=tune.grid_search(list(range(POPULATION))), round=length)
    with tempfile.TemporaryDirectory() as folder:
        results = tuned(member_of_population, config, ends, seed, folder=folder, scheduler=scheduler)
        return found(results, ends, "constant")


def asha(task: Task, budget: float, seed: int) -> Found:
    """ASHA over random search, until the budget is spent; a whole trial takes an eighth of it."""
    longest = max(int(budget / 8), 3)
    ends = Ends(budget)
    scheduler = ASHAScheduler(max_t=longest, grace_period=max(longest // 9, 1), reduction_factor=3)
    config = space(task, seed, number=tune.randint(0, 10**6), longest=longest)
    with tempfile.TemporaryDirectory() as folder:
        results = tuned(trial_of_asha, config, ends, seed, folder=folder, scheduler=scheduler, num_samples=-1)
        return found(results, ends, "linear end")
