"""Figures of a search: the transition graph, and every edge's validation curve."""

import io
import math
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.curves import fit_curve, num_parameters
from lightning_opplan.planning.graph import START, Edge, TransitionGraph, split_route
from lightning_opplan.planning.outcome import EdgeOutcome, Outcomes
from lightning_opplan.planning.search import Search

__all__ = [
    "FORMATS",
    "INK",
    "OTHER",
    "PATH",
    "POINTS",
    "STYLE",
    "curve_figure",
    "graph_figure",
    "save_figure",
    "svg_of",
]

FORMATS: Final = ("svg", "png", "pdf")
"""What figures can be had as."""

PATH, OTHER, FAINT, INK, POINTS = "#c0392b", "#5d6d7e", "#c8d0d8", "#1c2833", "#2471a3"
_LONGEST: Final = 22  # letters in a line of a state
STYLE: Final[Any] = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "opplan",
    "text.parse_math": False,  # a state may be called anything
    "font.family": "sans-serif",
}


def graph_figure(search: Search, *, chosen: Collection[Edge]) -> Figure:
    """Draw the transition graph with the value of every finished edge, the best parents and the path.

    Args:
        search: The search.
        chosen: The edges of the path.

    Returns:
        The figure.
    """
    graph = search.graph
    outcomes = _one_way_each(search.outcomes, set(search.leaders.values()))
    winners = {state: _base(edge) for state, edge in search.leaders.items()}
    chosen = [_base(edge) for edge in chosen]
    places = _places(graph)
    width = max(x for x, _ in places.values()) + 1
    low, high = min(y for _, y in places.values()), max(y for _, y in places.values())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.75 * width + 0.4, 1.25 * (high - low + 1)), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(-0.55, width - 0.45), ylim=(low - 0.55, high + 0.55))
        axes.axis("off")
        for edge in sorted(graph.edges, key=lambda edge: (edge in chosen, winners.get(edge.child) == edge)):
            _draw_edge(
                axes,
                edge,
                places,
                outcomes.get(edge),
                is_best=winners.get(edge.child) == edge,
                is_chosen=edge in chosen,
            )
        on_path = {edge.child for edge in chosen} | ({START} if chosen else set())
        for state, (x, y) in places.items():
            is_final = state in graph.finals.values()
            axes.text(
                x, y, _label(state), ha="center", va="center", fontsize=8.5, zorder=5,
                color=PATH if state in on_path else INK, fontweight="bold" if state in on_path else "normal",
                bbox={
                    "boxstyle": "round,pad=0.35", "facecolor": "#fdedec" if state in on_path else "white",
                    "edgecolor": PATH if state in on_path else OTHER, "linewidth": 2.0 if is_final else 1.0,
                },
            )  # fmt: skip
    return figure


def curve_figure(outcome: EdgeOutcome, *, monitor: str, mode: Any, family: Any, is_chosen: bool) -> Figure:
    """Draw an edge's validation values, the fitted curve and the knee.

    Args:
        outcome: The finished edge.
        monitor: Name of the metric.
        mode: Whether a higher or a lower value is better.
        family: Family of the curve; ``None`` to draw none.
        is_chosen: Whether the edge is on the path.

    Returns:
        The figure.
    """
    points = [(epoch, value) for epoch, value in outcome.curve if value is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.3), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True) if points else ([], []), ".", color=POINTS, markersize=5)
        if family is not None and len(points) >= num_parameters(family) and len({value for _, value in points}) > 1:
            epochs, values = zip(*points, strict=True)
            fit = fit_curve(values, family, mode=mode, epochs=epochs)
            fine = np.linspace(epochs[0], epochs[-1], 200)
            axes.plot(fine, fit.predict(fine), color=OTHER, linewidth=1.4)
        if outcome.value is not None:
            colour = PATH if is_chosen else OTHER
            axes.axvline(outcome.knee_epoch, color=colour, linewidth=0.9, linestyle="--")
            axes.plot(
                [outcome.knee_epoch], [outcome.value], "o", color=colour, markersize=7, fillstyle="none", mew=1.6
            )
        for missing in (epoch for epoch, value in outcome.curve if value is None):
            axes.axvline(missing, color=PATH, linewidth=0.9, alpha=0.4)
        axes.set_xlabel("epoch")
        axes.set_ylabel(monitor)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.03)
    return figure


def _base(edge: Edge) -> Edge:
    """The edge of the graph that an edge of a beam stands for."""
    return Edge(split_route(edge.parent)[0], edge.child)


def _one_way_each(outcomes: Outcomes, winners: Collection[Edge]) -> Outcomes:
    """One outcome for every edge of the graph: of a beam's, that of the way that was chosen, or of the first."""
    by_base: dict[Edge, EdgeOutcome] = {}
    for edge, outcome in sorted(outcomes.items(), key=lambda item: (item[0] not in winners, item[0])):
        by_base.setdefault(_base(edge), outcome)
    return by_base


def _places(graph: TransitionGraph) -> dict[str, tuple[float, float]]:
    """Put states in columns by the number of steps from the start, and branches above one another."""
    level: dict[str, int] = {START: 0}
    for state in graph.states[1:]:
        level[state] = 1 + max(level[parent] for parent in graph.parents(state))
    rows: dict[str, list[str]] = {}
    for state in graph.states[1:]:
        rows.setdefault(state.rpartition("/")[0], []).append(state)
    places: dict[str, tuple[float, float]] = {}
    offset = 0.0
    for states in rows.values():
        columns: dict[int, list[str]] = {}
        for state in states:
            columns.setdefault(level[state], []).append(state)
        tallest = max(len(column) for column in columns.values())
        height = max(tallest, 1.7 if len(columns) > 2 else 1)
        for x, column in columns.items():
            for row, state in enumerate(column):
                # Alternate columns a little: edges that skip a column would else run through its states.
                shift = 0.28 * (-1) ** x if len(column) == 1 else 0.0
                places[state] = (x, -(offset + height / 2 + row - len(column) / 2) + shift)
        offset += height + 0.35
    return {START: (0.0, float(np.mean([y for _, y in places.values()]))), **places}


def _draw_edge(
    axes: Axes,
    edge: Edge,
    places: Mapping[str, tuple[float, float]],
    outcome: EdgeOutcome | None,
    *,
    is_best: bool,
    is_chosen: bool,
) -> None:
    colour = PATH if is_chosen else OTHER if is_best else FAINT
    (x0, y0), (x1, y1) = places[edge.parent], places[edge.child]
    bend = _bend(edge, places)
    arrow = FancyArrowPatch(
        (x0, y0), (x1, y1), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=11,
        shrinkA=19, shrinkB=19, color=colour, linewidth=2.2 if is_chosen else 1.1, zorder=3 if is_chosen else 1,
    )  # fmt: skip
    axes.add_patch(arrow)
    if outcome is None:
        return
    text = "diverged" if outcome.value is None else f"{outcome.value:.3f}\n× {outcome.knee_epoch:g}"
    axes.text(
        *_middle(edge, places, bend), text, ha="center", va="center", fontsize=7, linespacing=0.95, zorder=4,
        color=PATH if is_chosen else INK if is_best else OTHER,
        bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip


def _bend(edge: Edge, places: Mapping[str, tuple[float, float]]) -> float:
    """Lead an edge that skips a column to the side where it keeps furthest from the states in between."""
    if places[edge.child][0] - places[edge.parent][0] == 1:
        return 0.0

    def clearance(bend: float) -> float:
        middle = _middle(edge, places, bend)
        return min(math.dist(middle, place) for state, place in places.items() if state not in edge)

    return max((0.16, -0.16, 0.26, -0.26), key=clearance)


def _middle(edge: Edge, places: Mapping[str, tuple[float, float]], bend: float) -> tuple[float, float]:
    """The middle of an edge's arrow: of a quadratic curve, half way to its control point."""
    (x0, y0), (x1, y1) = places[edge.parent], places[edge.child]
    return (x0 + x1) / 2 + bend * (y1 - y0) / 2, (y0 + y1) / 2 - bend * (x1 - x0) / 2


def _label(state: str) -> str:
    parts = (part if len(part) <= _LONGEST else f"{part[: _LONGEST - 1]}…" for part in state.split("/"))
    return "\n".join(parts)


def svg_of(figure: Figure) -> str:
    """Return a figure as an SVG element."""
    stream = io.StringIO()
    _save(figure, stream, "svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save_figure(figure: Figure, file: Path) -> Path:
    """Write a figure, in the format that the name of its file ends in.

    Args:
        figure: The figure.
        file: The file; its folder is made, too.

    Raises:
        ValueError: If there is no such format.
    """
    checked_choice("format", file.suffix.removeprefix("."), FORMATS)
    file.parent.mkdir(parents=True, exist_ok=True)
    _save(figure, str(file), file.suffix.removeprefix("."))
    return file


def _save(figure: Figure, target: Any, kind: str) -> None:
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser that shows it may have the letter
        figure.savefig(target, format=kind, metadata=dates.get(kind), dpi=200)
