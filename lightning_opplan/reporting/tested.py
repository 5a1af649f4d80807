"""What a search, its delivery, the control and the grid came to on the test set, side by side."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.table import Table

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.reporting.comparison import Spent, spent_on
from lightning_opplan.reporting.costs import hours_of

__all__ = ["Tested", "ensemble_files", "results_file", "tested_of", "tested_table", "verdict"]

_DELIVERED: Final = "delivered"
_CONTROL: Final = "control"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One way to spend a budget, on the test set.

    Attributes:
        title: What it is.
        role: ``"planned"``, ``"delivered"``, ``"control"`` or ``"grid"``.
        metric: The metric; ``None`` as long as nothing was tested.
        value: Of the averaged scores.
        members: Of each member alone.
        num_samples: Samples of the test, where that was counted.
        cost: What it took in all, the search included where it needs one.
        file: The ensemble to be tested.
    """

    title: str
    role: str
    metric: str | None
    value: float | None
    members: tuple[float, ...]
    num_samples: int | None
    cost: Spent
    file: Path

    @property
    def spread(self) -> str:
        """The members alone: how many, their mean, the lowest–the highest."""
        if len(self.members) < 2:
            return ""
        low, high = min(self.members), max(self.members)
        return f"{len(self.members)}: {statistics.fmean(self.members):.4f} ({low:.4f}–{high:.4f})"


def tested_of(folder: Path) -> tuple[Tested, ...]:
    """Read what lies in a plan's folder: everything that could be tested, and what came of it where it was."""
    if not Journal.of(folder).file.is_file():
        return ()
    plan, search = Journal.of(folder).read()
    searched = list(search.known)
    rows = [_row(plan, "planned", "searched", folder / "ensemble.yaml", searched)]
    for kind, role, title in (("deliver", _DELIVERED, "delivered"), ("grid", "grid", "hand-tuned grid")):
        journal = Journal.of(folder / kind)
        if journal.file.is_file():
            own = list(journal.read()[1].known)
            cost = [*searched, *own] if role == _DELIVERED else own
            rows.append(_row(plan, role, title, folder / kind / "ensemble.yaml", cost))
    return (*rows, *_controls(plan, folder / "control"))


def results_file(ensemble: Path) -> Path:
    """Return where the test of an ensemble is kept: ``test.json`` for ``ensemble.yaml``."""
    return ensemble.with_name(ensemble.stem.replace("ensemble", "test") + ".json")


def ensemble_files(folder: Path, groups: Iterable[str]) -> dict[str, Path]:
    """Return where the ensembles of some groups of trainings lie: that of the first one has the plain name."""
    groups = list(groups)
    names = ["ensemble.yaml", *(f"ensemble-{group}.yaml" for group in groups[1:])]
    return {group: folder / name for group, name in zip(groups, names, strict=False)}


def tested_table(rows: tuple[Tested, ...]) -> Table:
    """Return the rows as a table for the terminal."""
    metric = next((row.metric for row in rows if row.metric is not None), "test")
    table = Table(
        title="On the test set", box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False
    )
    table.add_column("", no_wrap=True)
    table.add_column(metric, justify="right", no_wrap=True)
    for name in ("members alone", "epochs", "samples", "device\ntime"):
        # Where there are 80 columns, the members' range has a line of its own.
        table.add_column(name, justify="right", min_width=len("(0.0000–0.0000)") if name == "members alone" else None)
    for row in rows:
        value = "not tested" if row.value is None else f"{row.value:.4f}"
        samples = "" if row.cost.samples is None else in_thousands(row.cost.samples)
        table.add_row(row.title, value, row.spread, f"{row.cost.epochs:g}", samples, hours_of(row.cost.device_hours))
    return table


def verdict(rows: tuple[Tested, ...], mode: str) -> str | None:
    """Say in one sentence whether planning was worth it; ``None`` as long as one of the two was not tested.

    What is less than a standard error of the test counts as level.
    """
    sign = 1.0 if mode == "max" else -1.0
    controls = [row for row in rows if row.role == _CONTROL and row.value is not None]
    planned = [row for row in rows if row.role == _DELIVERED and row.value is not None]
    planned = planned or [row for row in rows if row.role == "planned" and row.value is not None]
    if not controls or not planned:
        return None
    ours, control = planned[0], max(controls, key=lambda row: sign * (row.value or 0.0))
    assert ours.value is not None
    assert control.value is not None
    figures = f"{ours.title.capitalize()} {ours.value:.4f}, {control.title} {control.value:.4f} ({ours.metric})"
    ahead = sign * (ours.value - control.value)
    error = _error(ours, control) if mode == "max" else None
    if ahead and error is not None and abs(ahead) < error:
        return (
            f"Planning and its control are level, as far as {ours.num_samples} test samples can tell (± {error:.4f}): "
            f"{figures}."
        )
    if ahead < 0:
        return f"The control is ahead: without any search the same cost came to more. {figures}."
    if ahead == 0:
        return f"Planning and its control are level: {figures}."
    return f"Planning is ahead of its control: {figures}."


def _error(one: Tested, other: Tested) -> float | None:
    """Standard error of the difference of two shares of as many samples; ``None`` where they can be none.

    Of a mean of values from 0 to 1 on each sample, such as accuracies are, it is an upper bound.
    """
    values = [one.value, other.value]
    if not one.num_samples or any(value is None or not 0 <= value <= 1 for value in values):
        return None
    return math.sqrt(sum(value * (1 - value) for value in values if value is not None) / one.num_samples)


def _controls(plan: PlanRecord, folder: Path) -> tuple[Tested, ...]:
    journal = Journal.of(folder)
    if not journal.file.is_file():
        return ()
    control, search = journal.read()
    groups: dict[str, list[EdgeOutcome]] = {}
    for name, facts in control.trainings.items():
        taken = [outcome for outcome in search.known if outcome.edge.child.rpartition("/")[0] == name]
        groups.setdefault(facts["group"], []).extend(taken)
    files = ensemble_files(folder, groups)
    rows = []
    for group, taken in groups.items():
        rows.append(_row(plan, _CONTROL, f"control ({group})", files[group], taken))
    return tuple(rows)


def _row(plan: PlanRecord, role: str, title: str, file: Path, taken: list[EdgeOutcome]) -> Tested:
    results = results_file(file)
    found: Mapping[str, Any] = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
    metric = _metric(plan.monitor, found.get("ensemble", {}))
    return Tested(
        title=title,
        role=role,
        metric=metric,
        value=None if metric is None else found["ensemble"][metric],
        members=() if metric is None else tuple(each[metric] for each in found["members"].values()),
        num_samples=found.get("num_samples"),
        cost=spent_on(taken),
        file=file,
    )


def _metric(monitor: str, metrics: Mapping[str, float]) -> str | None:
    """What the test calls the metric that was planned for; ``None`` if it has no such one."""
    whole = re.sub(r"(?<![A-Za-z])([Vv]al(id(ation)?)?|[Ee]val(uation)?)(?![a-z])", "test", monitor)
    begun = re.sub(r"^(val(id(ation)?)?|eval(uation)?)", "test", monitor)  # as in valacc
    return next((name for name in (whole, begun) if name in metrics), None)
