"""Figures of a search: the transition graph, how planning went through it, and the paths of several searches.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Figures 2, 4 and 5.
"""

from collections.abc import Collection, Mapping
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text

from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.rows import best_edges
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.figures import FAINT, INK, OTHER, PATH, STYLE, Picture
from lightning_opplan.reporting.layout import (
    Places,
    base_of,
    bend_of,
    label_of,
    middle_of,
    one_way_each,
    places_of,
    shortened,
)

__all__ = ["graph_figure", "paths_figure", "procedure_figure"]

_PANELS: Final = ("the transition graph", "every edge up to its knee", "the best path", "the path and its epochs")


def graph_figure(search: Search, *, chosen: Collection[Edge]) -> Figure:
    """Draw the transition graph with the value of every finished edge, the best parents and the path.

    Args:
        search: The search.
        chosen: The edges of the path.

    Returns:
        The figure.
    """
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=_size(search.graph), layout="constrained")
        _draw(figure.add_subplot(), search, chosen, "all")
    return figure


def procedure_figure(search: Search, *, chosen: Collection[Edge]) -> Figure:
    """Draw how planning went, in the four panels of Figure 4: graph, explored edges, best path, and its epochs.

    Args:
        search: The search.
        chosen: The edges of the path.

    Returns:
        The figure.
    """
    width, height = _size(search.graph)
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(2 * width, 2 * height + 0.6), layout="constrained")
        for number, (title, shows) in enumerate(zip(_PANELS, ("graph", "edges", "path", "epochs"), strict=True), 1):
            axes = figure.add_subplot(2, 2, number)
            axes.set_title(f"({'abcd'[number - 1]}) {title}", loc="left", fontsize=10, color=INK)
            _draw(axes, search, chosen, shows)
    return figure


def paths_figure(paths: Mapping[str, OptimizationPath]) -> Figure:
    """Draw paths below one another, every state as long as its epochs, as Figure 5 sets them side by side.

    Args:
        paths: The paths, by what they are called.

    Returns:
        The figure.
    """
    longest = max((path.total_epochs for path in paths.values()), default=1.0) or 1.0
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(9.5, 1.2 * len(paths) + 0.7), layout="constrained")
        axes = figure.add_subplot()
        for row, path in enumerate(paths.values()):
            left = 0.0
            steps = [step for step in path.steps if step.epochs > 0]
            for number, step in enumerate(steps):
                shade = 0.15 + 0.55 * number / max(len(steps) - 1, 1)
                shape = (left, row - 0.2), step.epochs, 0.4
                axes.add_patch(Rectangle(*shape, facecolor=PATH, alpha=shade, edgecolor="white"))
                middle = left + step.epochs / 2
                if step.epochs > 0.09 * longest:
                    axes.text(
                        middle, row, f"{label_of(step.state)}\n× {step.epochs:g}",
                        ha="center", va="center", fontsize=7.5, linespacing=1.0, color=INK,
                    )  # fmt: skip
                else:
                    axes.text(
                        middle, row - 0.24, f"{shortened(step.state)} × {step.epochs:g}",
                        ha="left", va="bottom", fontsize=7.5, color=INK, rotation=22, rotation_mode="anchor",
                    )  # fmt: skip
                left += step.epochs
            if path.value is not None:
                axes.text(left + 0.01 * longest, row, f"{path.value:.4f}", va="center", fontsize=8.5, color=INK)
        axes.set(
            xlim=(0, 1.1 * longest), ylim=(len(paths) - 0.6, -0.8), yticks=range(len(paths)),
            yticklabels=list(paths), xlabel="epochs",
        )  # fmt: skip
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def _size(graph: TransitionGraph) -> tuple[float, float]:
    places = places_of(graph)
    rows = [y for _, y in places.values()]
    return 1.75 * (max(x for x, _ in places.values()) + 1) + 0.4, 1.25 * (max(rows) - min(rows) + 1)


def _draw(axes: Axes, search: Search, chosen: Collection[Edge], shows: str) -> None:
    """Draw the graph: alone, with what all edges came to, with the path, with the path's epochs, or with all of it."""
    graph = search.graph
    best = best_edges(search)
    outcomes = {} if shows == "graph" else one_way_each(search.outcomes, {*chosen} or best)
    winners = {base_of(edge).child: base_of(edge) for edge in best} if shows in ("all", "edges") else {}
    chosen = [base_of(edge) for edge in chosen] if shows not in ("graph", "edges") else []
    places = places_of(graph)
    heights = [y for _, y in places.values()]
    axes.set(xlim=(-0.55, max(x for x, _ in places.values()) + 0.55), ylim=(min(heights) - 0.55, max(heights) + 0.55))
    axes.axis("off")
    on_path = {edge.child for edge in chosen} | ({START} if chosen else set())
    boxes: dict[str, Text] = {}
    for state, (x, y) in places.items():
        if shows == "epochs" and state not in on_path:
            continue
        is_final = state in graph.finals.values()
        boxes[state] = axes.text(
            x, y, label_of(state), ha="center", va="center", fontsize=8.5, zorder=1,
            color=PATH if state in on_path else INK, fontweight="bold" if state in on_path else "normal",
            bbox={
                "boxstyle": "round,pad=0.35", "facecolor": "#fdedec" if state in on_path else "white",
                "edgecolor": PATH if state in on_path else OTHER, "linewidth": 2.0 if is_final else 1.0,
            },
        )  # fmt: skip
    # After the states, at whose boxes they end: where these are is known once they are drawn.
    edges = chosen if shows == "epochs" else graph.edges
    for edge in sorted(edges, key=lambda edge: (edge in chosen, winners.get(edge.child) == edge)):
        _draw_edge(
            axes,
            edge,
            places,
            boxes,
            outcomes.get(edge) if shows != "path" else None,
            is_best=winners.get(edge.child) == edge,
            is_chosen=edge in chosen,
        )


def _draw_edge(
    axes: Axes,
    edge: Edge,
    places: Places,
    boxes: Mapping[str, Text],
    outcome: EdgeOutcome | None,
    *,
    is_best: bool,
    is_chosen: bool,
) -> None:
    colour = PATH if is_chosen else OTHER if is_best else FAINT
    (x0, y0), (x1, y1) = places[edge.parent], places[edge.child]
    bend = bend_of(edge, places)
    arrow = FancyArrowPatch(
        (x0, y0), (x1, y1), connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=11,
        patchA=boxes[edge.parent].get_bbox_patch(), patchB=boxes[edge.child].get_bbox_patch(),
        shrinkA=1, shrinkB=2, color=colour, linewidth=2.2 if is_chosen else 1.1, zorder=3 if is_chosen else 2,
    )  # fmt: skip
    axes.add_patch(arrow)
    if outcome is None:
        return
    text = "diverged" if outcome.value is None else f"{outcome.value:.3f}\n× {outcome.knee_epoch:g}"
    axes.text(
        *middle_of(edge, places, bend), text, ha="center", va="center", fontsize=7, linespacing=0.95, zorder=4,
        color=PATH if is_chosen else INK if is_best else OTHER,
        bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )  # fmt: skip
