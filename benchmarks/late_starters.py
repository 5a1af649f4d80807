"""Whether waiting for late starters pays: plateaus at chance, and published validation curves.

    python benchmarks/late_starters.py [curves.jsonl] [--draws 100]

A plateau is what a network is worth that only guesses: the share of 100 or 500 samples, of 4 or 10 classes, that is
right by chance, drawn anew at every validation. Reported is how often the rule (T = 10) stops within plateaus of 15 to
60 epochs, for several waits, and how many epochs it spends on a training that never learns.

The curves are those of `curves.py`. Regret is how far the mean of five validations around the epoch that is kept lies
below the best such mean of the whole curve, in percent of the curve's range; curves of fewer than 20 epochs are left
out.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_opplan.planning.knee import KneeRule, Point

WAITS = (0, 30, 50)
LENGTHS = (15, 30, 45, 60)
NEVER = 100  # epochs of a training that never learns
LONGEST = 250  # epochs of a published curve that are looked at
CHANCES = tuple(product((100, 500), (4, 10)))


def stop_of(rule: KneeRule, points: Sequence[Point]) -> tuple[int, int]:
    """Epochs that are trained, and the epoch that is kept."""
    for number in range(2, len(points) + 1):
        decision = rule.decide(points[:number])
        if decision.stop or number == len(points):
            return int(points[number - 1][0]), int(decision.knee_epoch or 0)
    raise AssertionError("There is always a last epoch.")


def guesses(samples: int, classes: int, seed: int) -> list[Point]:
    draw = np.random.default_rng((seed, samples, classes))
    values = draw.binomial(samples, 1 / classes, NEVER) / samples
    return [(0, 0.0), *((epoch, float(value)) for epoch, value in enumerate(values, start=1))]


def print_plateaus(console: Console, draws: int) -> None:
    table = Table(title=f"Stopped within a plateau, of {draws * len(CHANCES)}", title_justify="left")
    for name in ("wait", *(f"{length} epochs" for length in LENGTHS), "epochs if it never learns"):
        table.add_column(name, justify="right")
    for wait in WAITS:
        rule = KneeRule(wait=float(wait))
        stops = [stop_of(rule, guesses(*chance, seed))[0] for chance in CHANCES for seed in range(draws)]
        shares = [f"{statistics.fmean(stop <= length for stop in stops):.1%}" for length in LENGTHS]
        table.add_row(str(wait), *shares, f"{statistics.fmean(stops):.0f}")
    console.print(table)


def centred_means(values: np.ndarray) -> np.ndarray:
    """The mean of five neighbours, of fewer at the ends."""
    return np.array([values[max(index - 2, 0) : index + 3].mean() for index in range(len(values))])


def print_curves(console: Console, file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    curves = [np.array(row["values"], float) * (1 if row["mode"] == "max" else -1) for row in rows]
    curves = [curve[:LONGEST] for curve in curves if len(curve) >= 20 and np.ptp(curve) > 0]
    found: dict[str, list[tuple[int, float]]] = {}
    rules = {f"wait {wait}": KneeRule(wait=float(wait)) for wait in WAITS}
    for name, rule in {**rules, "smoothed": KneeRule(rule="smoothed")}.items():
        for curve in curves:
            epochs, kept = stop_of(rule, list(enumerate(curve.tolist(), start=1)))
            means = centred_means(curve)
            regret = 100 * (means.max() - means[max(kept, 1) - 1]) / np.ptp(curve)
            found.setdefault(name, []).append((epochs, float(regret)))
    table = Table(title=f"{len(curves)} published curves", title_justify="left")
    for name in ("rule", "epochs, no wait = 1", "regret", "regret beside no wait ± s.e."):
        table.add_column(name, justify="left" if name == "rule" else "right")
    first = np.array(next(iter(found.values())))
    for name, stops in found.items():
        each = np.array(stops)
        beside = each[:, 1] - first[:, 1]
        error = beside.std(ddof=1) / len(beside) ** 0.5
        ratio = each[:, 0].sum() / first[:, 0].sum()
        table.add_row(name, f"{ratio:.3f}", f"{each[:, 1].mean():.2f}", f"{beside.mean():+.2f} ± {error:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="?")
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args()
    console = Console(width=120)
    print_plateaus(console, options.draws)
    if options.curves is not None:
        print_curves(console, options.curves)


if __name__ == "__main__":
    main()
