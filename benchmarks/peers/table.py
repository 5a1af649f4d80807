"""The table that is made of the rows."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from peers.rows import READ_OUTS, Row

NAMES = [name for names in READ_OUTS.values() for name in names]
REFERENCE = "planned"
Scores = dict[str, dict[tuple[str, float, int], float]]
"""Test accuracies in percent by rival, and by task, budget and seed."""


def print_tables(rows: Sequence[Row], command: str) -> None:
    """Print a table for every task and budget, one over all of them, and who did best."""
    console = Console(width=120)
    console.print(f"$ {command}", highlight=False)
    for task in dict.fromkeys(row["task"] for row in rows):
        seeds = sorted({row["seed"] for row in rows if row["task"] == task})
        console.print(f"{task}: seeds {', '.join(map(str, seeds))}", highlight=False)
    for machine in sorted({row["machine"] for row in rows}):
        console.print(machine, highlight=False)
    for task, budget in sorted({(row["task"], row["budget"]) for row in rows}, key=lambda key: (key[0], -key[1])):
        chosen = [row for row in rows if (row["task"], row["budget"]) == (task, budget)]
        console.print(table_of(chosen, f"{task}, {budget:g} B = {chosen[0]['epochs']:g} epochs"))
    console.print(table_of(rows, "All tasks and budgets"))
    console.print(best_of(rows))
    console.print(promises_of(rows))


def table_of(rows: Sequence[Row], title: str) -> Table:
    """Mean test accuracy of every rival, and how far it is from the planned search on the same seeds."""
    table = Table(title=f"{title}: test accuracy in %, and its difference to {REFERENCE} ± s.e. over seeds")
    table.add_column("rival")
    for name in NAMES:
        table.add_column(name, justify="right")
        table.add_column(f"− {REFERENCE}", justify="right")
    table.add_column("seeds", justify="right")
    scores = {name: scores_of(rows, name) for name in NAMES}
    for rival in dict.fromkeys(row["rival"] for row in rows):
        cells = []
        for name in NAMES:
            values = list(scores[name].get(rival, {}).values())
            cells += [f"{statistics.fmean(values):.2f}" if values else "", difference(scores[name], rival)]
        table.add_row(rival, *cells, str(len({row["seed"] for row in rows if row["rival"] == rival})))
    return table


def scores_of(rows: Iterable[Row], read_out: str) -> Scores:
    scores: Scores = defaultdict(dict)
    for row in rows:
        if row["read_out"] == read_out:
            scores[row["rival"]][row["task"], row["budget"], row["seed"]] = 100 * row["test"]
    return scores


def paired(scores: Scores, rival: str) -> tuple[float, float | None] | None:
    """The mean difference to the reference and its standard error, from the seeds' means over tasks and budgets."""
    reference = scores.get(REFERENCE, {})
    by_seed = defaultdict(list)
    for place, value in scores.get(rival, {}).items():
        if place in reference:
            by_seed[place[-1]].append(value - reference[place])
    means = [statistics.fmean(values) for values in by_seed.values()]
    if not means:
        return None
    error = float(np.std(means, ddof=1)) / len(means) ** 0.5 if len(means) > 1 else None
    return statistics.fmean(means), error


def difference(scores: Scores, rival: str) -> str:
    found = paired(scores, rival)
    if found is None or rival == REFERENCE:
        return ""
    mean, error = found
    return f"{mean:+.2f}" if error is None else f"{mean:+.2f} ± {error:.2f}"


def promises_of(rows: Sequence[Row]) -> Table:
    """By how much what a search promised is above the test, and what it said is to be expected."""
    table = Table(title="Promised and expected value, less the test accuracy of the same weights, in points ± s.e.")
    for name in ("rival", "task", "promised − test", "expected − test", "rows"):
        table.add_column(name, justify="left" if name in ("rival", "task") else "right")
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("promised") and row["read_out"] == "searched":
            groups[row["rival"], row["task"]].append(row)
    for (rival, task), chosen in groups.items():
        cells = []
        for index in (0, 1):
            points = [100 * (row["promised"][index] - row["test"]) for row in chosen]
            error = statistics.stdev(points) / len(points) ** 0.5 if len(points) > 1 else float("nan")
            cells.append(f"{statistics.fmean(points):+.2f} ± {error:.2f}")
        table.add_row(rival, task, *cells, str(len(chosen)))
    return table


def best_of(rows: Sequence[Row]) -> Table:
    """The rival with the highest mean over the budgets on every task, whether it won or lost."""
    table = Table("task", *NAMES, title=f"The best other rival, and its difference to {REFERENCE}")
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = []
        for name in NAMES:
            scores = scores_of([row for row in rows if row["task"] == task], name)
            found = {rival: paired(scores, rival) for rival in scores if rival != REFERENCE}
            known = {rival: pair for rival, pair in found.items() if pair is not None}
            best = max(known, key=lambda rival: known[rival][0], default=None)
            cells.append("" if best is None else f"{best} {difference(scores, best)}")
        table.add_row(task, *cells)
    return table
