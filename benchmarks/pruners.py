"""The knee's pruner beside Optuna's own, on a study of small networks.

    python benchmarks/pruners.py --seeds 0-5              # trains 32 networks for each seed, and replays them
    python benchmarks/pruners.py --schedule cosine        # where the rule of constant rates does not hold

For every seed 32 settings of a multilayer perceptron on scikit-learn's digits are drawn at random (learning rate,
weight decay, width, dropout, batch size) and each is trained for all its epochs once. The studies replay these
trainings, so every pruner sees the same trials in the same order: a trial that is pruned costs the epochs until then.
Splits, settings and initial weights are drawn anew for each seed: 500 digits for training, 500 for validation, the
others for the test.

Reported are means over the seeds, with standard errors. Of all 32 trials: the epochs that were spent, as a share of
those without pruning, and the test accuracy of the best trial beside that without pruning, paired. Of the cost of 8
whole trainings: how many trials began, and the test accuracy of the best one that completed, paired likewise. The best
trial is the completed one with the best validation, and its weights are those of its best epoch. "also ends the best"
is a loop that asks the rule for its own end, too: a trial that is ahead completes at its knee.
"""

import argparse
import math
import statistics
import time
import warnings
from dataclasses import dataclass

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from lightning_opplan.integrations.optuna import KneePruner
from lightning_opplan.planning.knee import KneeRule

NUM_TRIALS, BUDGET = 32, 8
NONE = "no pruning"
RULE = KneeRule()


@dataclass(frozen=True)
class Training:
    """Validation and test accuracy after every epoch."""

    val: tuple[float, ...]
    test: tuple[float, ...]


def split(seed):
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    pixels = torch.tensor(digits.data[order] / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target[order])
    bounds = {"train": slice(500), "val": slice(500, 1000), "test": slice(1000, None)}
    return {name: (pixels[part], labels[part]) for name, part in bounds.items()}


def drawn(generator):
    return {
        "rate": float(10 ** generator.uniform(-3.5, 0.5)),
        "decay": float(10 ** generator.uniform(-5, -1)),
        "width": int(2 ** generator.integers(3, 8)),
        "dropout": float(generator.uniform(0, 0.6)),
        "batch": int(2 ** generator.integers(5, 9)),
    }


def train(setting, data, epochs, schedule, seed):
    torch.manual_seed(seed)
    width = setting["width"]
    network = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Dropout(setting["dropout"]),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(setting["dropout"]), nn.Linear(width, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(
        network.parameters(), setting["rate"], momentum=0.9, weight_decay=setting["decay"], nesterov=True, fused=True
    )
    pixels, labels = data["train"]
    curves = {"val": [], "test": []}
    for epoch in range(epochs):
        if schedule == "cosine":
            optimizer.param_groups[0]["lr"] = setting["rate"] * (1 + math.cos(math.pi * epoch / epochs)) / 2
        network.train()
        for batch in torch.randperm(len(labels)).split(setting["batch"]):
            optimizer.zero_grad()
            functional.cross_entropy(network(pixels[batch]), labels[batch]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for name, curve in curves.items():
                curve.append(float((network(data[name][0]).argmax(1) == data[name][1]).float().mean()))
    return Training(tuple(curves["val"]), tuple(curves["test"]))


def pruners():
    median = optuna.pruners.MedianPruner
    return {
        NONE: (optuna.pruners.NopPruner(), False),
        "median": (median(), False),
        "median, 10 warm-up steps": (median(n_warmup_steps=10), False),
        "patient (10)": (optuna.pruners.PatientPruner(None, patience=10), False),
        "patient (10), median": (optuna.pruners.PatientPruner(median(), patience=10), False),
        "knee": (KneePruner(RULE), False),
        "knee, also ends the best": (KneePruner(RULE), True),
    }


def replay(trainings, pruner, *, ends_best, budget):
    """Epochs, or trials in the budget, and the test accuracy of the best completed trial in percent."""
    spent, begun, completed = 0, [], []

    def objective(trial):
        nonlocal spent
        begun.append(spent)
        training, points = trainings[trial.number], []
        for epoch, value in enumerate(training.val):
            spent += 1
            trial.report(value, epoch)
            points.append((epoch + 1, value))
            if trial.should_prune():
                raise optuna.TrialPruned
            if ends_best and RULE.decide(points).stop:
                break
        best = int(np.argmax(training.val[: len(points)]))
        completed.append((training.val[best], -spent, 100 * training.test[best]))
        return training.val[best]

    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=len(trainings))
    within = max(trial for trial in completed if -trial[1] <= budget)
    return (spent, max(completed)[2]), (sum(start < budget for start in begun), within[2])


def mean_and_error(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def cells(found, plain):
    """Cost and accuracy of all trials, trials and accuracy within the budget."""
    (all_trials, within), (all_plain, within_plain) = zip(*found, strict=True), zip(*plain, strict=True)
    share = mean_and_error([mine[0] / theirs[0] for mine, theirs in zip(all_trials, all_plain, strict=True)])
    row = [f"{share[0]:.3f} ± {share[1]:.3f}"]
    for runs, plains in ((all_trials, all_plain), (within, within_plain)):
        if runs is within:
            row.append(f"{statistics.fmean(run[0] for run in runs):.1f}")
        if found is plain:
            row.append(f"{statistics.fmean(run[1] for run in runs):.2f}%")
        else:
            gain, error = mean_and_error([mine[1] - theirs[1] for mine, theirs in zip(runs, plains, strict=True)])
            row.append(f"{gain:+.2f} ± {error:.2f}")
    return row


def seeds_of(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds_of, default=range(6), help="Such as 0-9.")
    parser.add_argument("--epochs", type=int, default=60, help="Of a whole training.")
    parser.add_argument("--schedule", choices=["constant", "cosine"], default="constant")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # PatientPruner is one

    console = Console(width=130)
    found = {name: [] for name in pruners()}
    began = time.perf_counter()
    for seed in options.seeds:
        data, generator = split(seed), np.random.default_rng((seed, 1))
        settings = [drawn(generator) for _ in range(NUM_TRIALS)]
        trainings = [
            train(setting, data, options.epochs, options.schedule, seed=1000 * seed + number)
            for number, setting in enumerate(settings)
        ]
        for name, (pruner, ends_best) in pruners().items():
            budget = BUDGET * options.epochs
            found[name].append(replay(trainings, pruner, ends_best=ends_best, budget=budget))
        console.print(f"seed {seed}: {time.perf_counter() - began:.0f} s", style="dim")

    table = Table(
        title=f"{NUM_TRIALS} trials of {options.epochs} epochs, {options.schedule} rate, {len(options.seeds)} seeds; "
        f"Optuna {optuna.__version__}",
        title_justify="left",
    )
    table.add_column("pruner")
    names = ("epochs", "test accuracy", f"trials in {BUDGET} × {options.epochs} epochs", "test accuracy")
    for name in names:
        table.add_column(name, justify="right")
    for name, runs in found.items():
        table.add_row(name, *cells(runs, found[NONE]))
    console.print(table)


if __name__ == "__main__":
    main()
