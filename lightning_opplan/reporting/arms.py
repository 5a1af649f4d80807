"""The arms of a budgeted search: their table, their curves, and how sure the choice among them is."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.reporting.figures import INK, OTHER, PATH, STYLE, Picture
from lightning_opplan.wording import duration

__all__ = ["arm_note", "arm_table", "arms_figure", "choice_sentences", "ordered_arms"]


def arm_table(
    search: Halving, *, running: Mapping[Edge, tuple[str, ...]] | None = None, max_rows: int | None = None
) -> Table:
    """Return a table with a row per arm that has begun, the best first once the search is over.

    Args:
        search: The search.
        running: Cells for value, knee, epochs and time of the arms that run.
        max_rows: Rows to show at most.
    """
    running = running or {}
    table = Table(
        title=_title(search, len(running)), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left",
        pad_edge=False,
    )  # fmt: skip
    table.add_column("arm", overflow="fold")
    for name, width in (("value", 7), ("±", 6), ("epochs", 6), ("time", 6)):
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    table.add_column("", no_wrap=True, min_width=10)
    rows = ordered_arms(search)
    rows = [*rows, *(edge for edge in running if edge not in rows)]
    if max_rows is not None and len(rows) > max(max_rows, 1):
        rows = sorted(rows, key=lambda edge: edge not in running)[: max(max_rows, 1)]
    best = search.best_so_far if search.is_complete else None
    for edge in rows:
        if edge in running:
            seen, _, epochs, time, note = running[edge]
            table.add_row(Text(edge.child), seen, "", epochs, time, note, style="yellow")
            continue
        outcome = search.outcome(edge)
        assert outcome is not None
        value = search.value(edge)
        error = "" if value is None else f"{search.standard_error(edge):.4f}"
        style = "bold green" if edge.child == best else "" if _rung(search, edge) == len(search.rungs) else "dim"
        table.add_row(
            Text(edge.child), "diverged" if value is None else f"{value:.4f}", error, f"{outcome.epochs_run:g}",
            duration(outcome.seconds), arm_note(search, edge), style=style,
        )  # fmt: skip
    return table


def ordered_arms(search: Halving) -> list[Edge]:
    """Return the arms that have begun: those of the later rungs first, and the best of each first."""
    order = search.ranked()
    place = {edge: index for index, edge in enumerate(order)}
    known = [outcome.edge for outcome in search.known]
    sign = 1.0 if search.mode == "max" else -1.0

    def rank(edge: Edge) -> tuple[float, float, float]:
        value = search.value(edge)
        return -_rung(search, edge), place.get(edge, len(order)), float("inf") if value is None else -sign * value

    return sorted(known, key=rank) if search.is_complete else known


def arm_note(search: Halving, edge: Edge) -> str:
    """Say what an arm is, beside its setting."""
    notes = ["★ best"] if search.is_complete and edge.child == search.best_so_far else []
    if search.arm(edge).is_own:
        notes.append("own")
    if search.is_blind(edge):
        notes.append("no better than chance")
    return ", ".join(notes)


def choice_sentences(search: Halving) -> list[str]:
    """Say how the best arm was chosen, and how sure that is."""
    order = search.ranked()
    if not order:
        return []
    best = order[0]
    sentences = []
    if search.is_blind(best):
        sentences.append(
            f"No arm has learned more than the frequencies of the classes ({search.chance:.4f}): the choice is the "
            "configuration's own, not a finding. A larger budget, or fewer arms, would show more."
        )
    elif len(order) > 1:
        rival = order[1]
        probability = search.probability_of_better(rival, best)
        sentences.append(
            f"The second best arm, {rival.child}, is the better one with a probability of "
            f"{_percent(probability)}, by the standard errors of both."
        )
        if search.is_equal(best, rival):
            sentences.append(
                "The two count as equal; of equals the configuration's own setting is taken, then later positions on "
                "the axes, then the cheaper."
            )
    skipped = next((rung for rung in search.rungs if rung.reason is not None), None)
    if skipped is not None:
        sentences.append(f"The last rung was left out ({skipped.reason}); its share is left for the delivery.")
    return sentences


def arms_figure(search: Halving, *, monitor: str) -> Figure:
    """Draw the curves of all arms over one another, the best one above."""
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        best = search.best_so_far
        for edge in reversed(ordered_arms(search)):
            outcome = search.outcome(edge)
            curve = () if outcome is None else outcome.curve
            points = [(epoch, value) for epoch, value in curve if value is not None]
            if not points:
                continue
            since = 0 if outcome is None else outcome.since or 0
            epochs, values = [since + epoch for epoch, _ in points], [value for _, value in points]
            is_best, is_own = edge.child == best, search.arm(edge).is_own
            axes.plot(
                epochs, values, "-", marker="." if len(points) < 3 else "", linewidth=2.0 if is_best else 1.0,
                color=PATH if is_best else INK if is_own else OTHER, alpha=1.0 if is_best or is_own else 0.55,
                label="the best arm" if is_best else "the configuration's own" if is_own else None,
            )  # fmt: skip
        if search.chance is not None:
            axes.axhline(search.chance, color=OTHER, linestyle=":", linewidth=1.0, label="chance")
        for rung in search.rungs:
            axes.axvline(rung.epochs, color=OTHER, linewidth=0.6, linestyle="--")
        axes.set_xlabel("epoch")
        axes.set_ylabel(monitor)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.02)
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
    return figure


def _percent(probability: float) -> str:
    return "less than 1%" if probability < 0.01 else f"{probability:.0%}"


def _rung(search: Halving, edge: Edge) -> int:
    """The last rung that an arm was in, from 1."""
    return max((number for number, rung in enumerate(search.rungs, start=1) if edge in rung.edges), default=0)


def _title(search: Halving, num_running: int) -> str:
    unit = {"epochs": "epochs", "gpu_hours": "GPU-hours", "clip_frames": "clip-frames"}[search.unit]
    rung = f", rung {len(search.rungs)}" if search.rungs else ""
    spent = f"{in_thousands(search.spent)} of {in_thousands(search.budget)} {unit}"
    running = f"; {num_running} running" if num_running else ""
    return f"{len(search.known)} arms{rung}, {spent}{running}"
