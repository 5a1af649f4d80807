"""When to stop a single training, judged by the test accuracy of the weights that are kept.

Trainings at constant learning rates on the tasks of `peers.py`, without and with averaged weights, are recorded once,
with validation and test accuracy after every epoch; every rule then says where it would have stopped, and which epoch
it would have kept.

    pip install 'lightning-opplan[bench]'
    python benchmarks/stops.py --out runs/stops.jsonl --seeds 0-7     # records what is missing, and prints the table
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from peers.rows import machine, numbers, prepare
from rich.console import Console
from rich.table import Table

from lightning_opplan.planning.knee import KneeRule, Point

EPOCHS = 150
KINDS = ("plain", "averaged")
Curve = dict[str, Any]
Rule = Callable[[Sequence[Point]], tuple[int, int]]
"""From all validations to the epochs that were trained, and the epoch that is kept."""


class Tester(Callback):
    """Validation and test accuracy after every epoch; of the averages, where weights are averaged."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.validation: list[float] = []
        self.test: list[float] = []

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from peers.training import accuracy, copied

        model = copied(pl_module)
        self.validation.append(accuracy(self.task, model))
        self.test.append(accuracy(self.task, model, part="test"))


def record(file: Path, seeds: Sequence[int]) -> None:
    """Train what is missing, and append its curves."""
    prepare()
    from peers.tasks import DECAY, RATE, TASKS
    from peers.training import train, training_seed

    there = {(row["task"], row["rate"], row["seed"], row["kind"]) for row in read(file)}
    file.parent.mkdir(parents=True, exist_ok=True)
    wanted = [(n, s, r, k) for s in seeds for n in TASKS for r in TASKS[n].rates for k in KINDS]
    for name, seed, rate, kind in wanted:
        if (name, rate, seed, kind) in there:
            continue
        task = TASKS[name].of(seed)
        tester, averaging = Tester(task), 0.2 if kind == "averaged" else None
        setting = {**task.axis[-1], RATE: rate, DECAY: 1e-4}
        # The tester comes before the averaging, which puts the plain weights back at the end of a validation.
        train(
            task, setting, EPOCHS, "constant", training_seed(seed, 0), averaging=averaging, callbacks=[tester]
        )  # fmt: skip
        row = {
            "task": name, "rate": rate, "seed": seed, "kind": kind, "validation": tester.validation,
            "test": tester.test, "machine": machine(),
        }  # fmt: skip
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{name}, rate {rate:g}, seed {seed}, {kind}: {tester.test[-1]:.4f} at the end", flush=True)


def read(file: Path) -> list[Curve]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def by_rule(rule: KneeRule) -> Rule:
    def stop(points: Sequence[Point]) -> tuple[int, int]:
        for number in range(2, len(points) + 1):
            decision = rule.decide(points[:number])
            if decision.stop or number == len(points):
                return number - 1, int(decision.knee_epoch or 0)
        raise AssertionError("There is always a last epoch.")

    return stop


def by_patience(patience: int) -> Rule:
    """The best validation, once none was better for so many epochs: EarlyStopping with its checkpoint."""

    def stop(points: Sequence[Point]) -> tuple[int, int]:
        best = 1
        for epoch, value in points[1:]:
            if value is not None and value > (points[best][1] or 0.0):
                best = int(epoch)
            if epoch - best >= patience:
                return int(epoch), best
        return len(points) - 1, best

    return stop


RULES: dict[str, Rule] = {
    'rule="paper"': by_rule(KneeRule()),
    'rule="smoothed"': by_rule(KneeRule(rule="smoothed")),
    "patience 10": by_patience(10),
    "patience 15": by_patience(15),
    "all epochs, the best": by_patience(EPOCHS),
}


def judged(row: Curve) -> dict[str, tuple[float, float]]:
    """Test accuracy in points of what each rule keeps, and the epochs it takes."""
    points = [(0.0, 0.0), *((float(epoch), value) for epoch, value in enumerate(row["validation"], start=1))]
    stops = {name: rule(points) for name, rule in RULES.items()}
    return {name: (100 * row["test"][max(kept, 1) - 1], run) for name, (run, kept) in stops.items()}


def print_table(rows: Sequence[Curve], console: Console) -> None:
    rates = sorted({row["rate"] for row in rows}, reverse=True)
    for kind in KINDS:
        chosen = [row for row in rows if row["kind"] == kind]
        seeds = sorted({row["seed"] for row in chosen})
        scores = [(row, judged(row)) for row in chosen]
        table = Table(
            title=f"{kind} weights, {len(chosen)} trainings, seeds {seeds}: test accuracy and its gain, points",
            title_justify="left",
        )
        for name in ("rule", "epochs", "test", "difference", *(f"at {rate:g}" for rate in rates)):
            table.add_column(name, justify="left" if name == "rule" else "right")
        for name in RULES:
            cells = [over_seeds(scores, name)]
            cells += [over_seeds([pair for pair in scores if pair[0]["rate"] == rate], name) for rate in rates]
            epochs = statistics.fmean(found[name][1] for _, found in scores)
            test = statistics.fmean(found[name][0] for _, found in scores)
            table.add_row(name, f"{epochs:.1f}", f"{test:.2f}", *cells)
        console.print(table)


def over_seeds(scores: Sequence[tuple[Curve, dict[str, tuple[float, float]]]], name: str) -> str:
    """The mean difference to the paper's rule, with its standard error over seeds."""
    paper = next(iter(RULES))
    by_seed = defaultdict(list)
    for row, found in scores:
        by_seed[row["seed"]].append(found[name][0] - found[paper][0])
    means = [statistics.fmean(values) for values in by_seed.values()]
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return "" if name == paper else f"{statistics.fmean(means):+.2f} ± {error:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/stops.jsonl"))
    parser.add_argument("--seeds", type=numbers, default=list(range(8)), help="Such as 0-7.")
    options = parser.parse_args()
    record(options.out, options.seeds)
    console = Console(width=140)
    console.print("$ python", *sys.argv, highlight=False)
    rows = [row for row in read(options.out) if row["seed"] in options.seeds]
    console.print(*sorted({row["machine"] for row in rows}), highlight=False)
    print_table(rows, console)


if __name__ == "__main__":
    main()
