"""What stands beside a search: the second best ways, the hand-tuned grid, and the variants of the path.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Tables 3 and 5, section 5.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search, probability_of_better
from lightning_opplan.reporting.costs import hours_of

__all__ = [
    "Comparison",
    "RunnerUp",
    "Spent",
    "Strategy",
    "comparison_of",
    "comparison_tables",
    "runner_ups",
    "spent",
    "spent_on",
]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What trainings have taken.

    Attributes:
        epochs: Epochs trained.
        device_hours: Hours, times devices.
        samples: Samples trained on; ``None`` where they were not counted.
        clip_frames: Frames of clips; ``None`` where batches held none.
    """

    epochs: float
    device_hours: float
    samples: float | None
    clip_frames: float | None


@dataclass(frozen=True, kw_only=True)
class RunnerUp:
    """The second best way into a state.

    Attributes:
        state: The state.
        winner: The way that was chosen.
        rival: The second best one.
        probability: That the second best one is better, by the standard errors; ``None`` where they are unknown.
    """

    state: str
    winner: EdgeOutcome
    rival: EdgeOutcome
    probability: float | None


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way of hand-tuning: the best of its trainings.

    Attributes:
        branch: The branch.
        steps: The way along the first axis.
        best: By decay, the best value and the epochs that gave it; ``None`` as long as none has finished.
    """

    branch: str
    steps: str
    best: Mapping[str, tuple[float, int] | None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A search beside what it is compared with.

    Attributes:
        monitor: The metric.
        path_value: Value at the end of the path.
        path_observed: The validation at its last knee.
        path_epochs: Epochs along the path.
        search: What the search took.
        strategies: Rows of Table 3, if the grid was run.
        grid_best: Name, value and epochs of the best hand-tuned training.
        grid: What the grid took.
        grid_trainings: Trainings that have finished, and all.
        variants: Name, value, epochs and difference to the path of every variant of section 5.4 that has finished.
    """

    monitor: str
    path_value: float | None
    path_observed: float | None
    path_epochs: float
    search: Spent
    strategies: tuple[Strategy, ...] = ()
    grid_best: tuple[str, float, float] | None = None
    grid: Spent | None = None
    grid_trainings: tuple[int, int] = (0, 0)
    variants: tuple[tuple[str, float, float, float], ...] = ()

    @property
    def decays(self) -> tuple[str, ...]:
        """How the learning rate went in the hand-tuned trainings."""
        return tuple(dict.fromkeys(decay for row in self.strategies for decay in row.best))


def spent(search: Search | Halving) -> Spent:
    """Add up what all edges of a search have taken."""
    return spent_on(search.known)


def spent_on(outcomes: Sequence[EdgeOutcome]) -> Spent:
    """Add up what edges have taken."""

    def total(numbers: Sequence[int | None]) -> float | None:
        known = [number for number in numbers if number is not None]
        return float(sum(known)) if known and len(known) == len(numbers) else None

    return Spent(
        epochs=sum(outcome.epochs_run for outcome in outcomes),
        device_hours=sum(outcome.device_seconds for outcome in outcomes) / 3600,
        samples=total([outcome.num_samples for outcome in outcomes]),
        clip_frames=total([outcome.clip_frames for outcome in outcomes]),
    )


def runner_ups(search: Search | Halving) -> tuple[RunnerUp, ...]:
    """Return the second best way into every settled state that has one, and the probability that it is better."""
    if isinstance(search, Halving):
        return ()
    sign = 1.0 if search.mode == "max" else -1.0
    rows = []
    for state in search.graph.states[1:]:
        if state not in search.winners:
            continue
        winner = search.outcomes[search.winners[state]]
        others = [
            outcome
            for edge, outcome in search.outcomes.items()
            if edge.child == state and edge != winner.edge and outcome.value is not None
        ]
        if others:
            rival = max(others, key=lambda outcome: sign * (outcome.value or 0.0))
            probability = probability_of_better(rival, winner, search.mode)
            rows.append(RunnerUp(state=state, winner=winner, rival=rival, probability=probability))
    return tuple(rows)


def comparison_of(folder: Path) -> Comparison:
    """Read the journals in a plan's folder, that of the grid and that of the study among them."""
    plan, search = Journal.of(folder).read()
    value, observed, epochs = None, None, 0.0
    path = search.path()
    if path is not None:
        last = search.outcome(search.leaders[path.steps[-1].state])
        assert last is not None
        value, observed, epochs = last.value, dict(last.curve).get(last.knee_epoch), path.total_epochs
    found = Comparison(
        monitor=plan.monitor, path_value=value, path_observed=observed, path_epochs=epochs, search=spent(search)
    )
    for name, add in (("grid", _with_grid), ("study", _with_study)):
        journal = Journal.of(folder / name)
        if journal.file.is_file():
            found = add(found, *journal.read())
    return found


def comparison_tables(found: Comparison) -> Group:
    """Return what there is to compare as tables for the terminal."""
    tables = []
    if found.strategies:
        table = _table(f"Hand-tuned ({found.monitor}; in brackets the best number of epochs)", "sampling", "strategy")
        for name in found.decays:
            table.add_column(name.replace("_", " "), justify="right")
        for row in found.strategies:
            bests = [row.best.get(decay) for decay in found.decays]
            cells = [f"{best[0]:.4f} ({best[1]})" if best else "" for best in bests]
            table.add_row(row.branch, row.steps, *cells)
        tables.append(table)
        table = _table("Planned and hand-tuned", "", found.monitor, "epochs", "device time", "clip-frames", "trained")
        for title, best, epochs, cost in cost_rows(found):
            frames = "" if cost.clip_frames is None else in_thousands(cost.clip_frames)
            table.add_row(title, best, f"{epochs:g}", hours_of(cost.device_hours), frames, f"{cost.epochs:g} epochs")
        tables.append(table)
    if found.variants:
        table = _table("Variants of the path", "variant", found.monitor, "epochs", "beside the path")
        for name, value, epochs, difference in found.variants:
            table.add_row(name, f"{value:.4f}", f"{epochs:g}", f"{difference:+.4f}")
        tables.append(table)
    return Group(*tables)


def cost_rows(found: Comparison) -> list[tuple[str, str, float, Spent]]:
    """Return the rows of Table 5: title, value, epochs of the result, and what finding it took."""
    rows = []
    if found.path_value is not None:
        observed = "" if found.path_observed is None else f" ({found.path_observed:.4f} observed)"
        rows.append(("optimization planning", f"{found.path_value:.4f}{observed}", found.path_epochs, found.search))
    if found.grid_best is not None and found.grid is not None:
        name, value, epochs = found.grid_best
        rows.append((f"hand-tuned: {name}", f"{value:.4f}", epochs, found.grid))
    return rows


def _with_grid(found: Comparison, plan: PlanRecord, search: Search | Halving) -> Comparison:
    values = _finals(search)
    sign = 1.0 if plan.mode == "max" else -1.0
    groups: dict[tuple[str, str], dict[str, list[tuple[float, int]]]] = {}
    for name, facts in plan.trainings.items():
        row = groups.setdefault((facts["branch"], " → ".join(map(str, facts["steps"]))), {})
        results = row.setdefault(facts["decay"], [])
        if name in values:
            results.append((values[name][0], facts["epochs"]))
    strategies = tuple(
        Strategy(
            branch=branch,
            steps=steps,
            best={
                decay: max(results, key=lambda pair: sign * pair[0], default=None) for decay, results in row.items()
            },
        )
        for (branch, steps), row in groups.items()
    )
    best = max(values, key=lambda name: sign * values[name][0], default=None)
    return replace(
        found,
        strategies=strategies,
        grid_best=None if best is None else (best, *values[best]),
        grid=spent(search),
        grid_trainings=(len(values), len(plan.graph.finals)),
    )


def _with_study(found: Comparison, _: PlanRecord, search: Search | Halving) -> Comparison:
    values = _finals(search)
    if "the path" not in values:
        return found
    of_path = values["the path"][0]
    rows = tuple((name, value, epochs, value - of_path) for name, (value, epochs) in values.items())
    return replace(found, variants=rows)


def _finals(search: Search | Halving) -> dict[str, tuple[float, float]]:
    """Value and epochs of every chain that has finished, by its name."""
    found = {}
    for name, state in search.graph.finals.items():
        path = search.path(state) if state in search.winners else None
        if path is not None and path.value is not None:
            found[name] = path.value, path.total_epochs
    return found


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table
