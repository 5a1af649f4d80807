"""Figures of a search for notebooks and papers: functions that return a matplotlib figure."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_opplan.messages import suggestion
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.arms import arms_figure
from lightning_opplan.reporting.comparison import comparison_of
from lightning_opplan.reporting.figures import INK, OTHER, PATH, POINTS, STYLE, Picture, draw_curve
from lightning_opplan.reporting.graph_figures import graph_figure, paths_figure
from lightning_opplan.reporting.tested import tested_of

__all__ = ["Searched", "plot_comparison", "plot_curves", "plot_graph", "plot_paths"]


class Searched(Protocol):
    """What knows a search, such as a `SearchResult`."""

    @property
    def plan(self) -> PlanRecord:
        """What was searched."""

    @property
    def search(self) -> Search | Halving:
        """All that the search knows."""

    @property
    def dirpath(self) -> Path:
        """Its folder."""


Source = str | os.PathLike[str] | Searched


def plot_graph(source: Source) -> Figure:
    """Draw the transition graph with the value of every finished edge, the best parents and the path.

    Of a search with a budget, which has no graph, the curves of its arms are drawn.

    Args:
        source: The folder of a search, or a `SearchResult`.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Figure 4.
    """
    plan, search, _ = _known(source)
    if isinstance(search, Halving):
        return arms_figure(search, monitor=plan.monitor)
    return graph_figure(search, chosen=_chosen(search))


def plot_curves(source: Source, *, edges: Sequence[tuple[str, str]] | None = None, num_columns: int = 3) -> Figure:
    """Draw the validations of edges, with the fitted curve and the knee of each.

    Args:
        source: The folder of a search, or a `SearchResult`.
        edges: Pairs of parent and child state; by default the edges of the path.
        num_columns: Panels beside each other at most.

    Raises:
        ValueError: If an edge has not been trained.
    """
    plan, search, _ = _known(source)
    chosen = _chosen(search)
    wanted = chosen if edges is None else [Edge(*edge) for edge in edges]
    outcomes = {outcome.edge: outcome for outcome in search.known}
    for edge in wanted:
        if edge not in outcomes:
            raise ValueError(
                f"`edges` must have been trained, got {str(edge)!r}. "
                + suggestion(str(edge), map(str, outcomes), label="Trained edges")
            )
    if not wanted:
        raise ValueError("`edges` must name an edge, got none, and the search has no path yet.")
    columns = min(num_columns, len(wanted))
    rows = math.ceil(len(wanted) / columns)
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
        for number, edge in enumerate(wanted, start=1):
            axes = figure.add_subplot(rows, columns, number)
            axes.set_title(str(edge), fontsize=9, color=PATH if edge in chosen else INK)
            family = None if isinstance(search, Halving) else plan.options.rule.curve
            draw_curve(
                axes, outcomes[edge], monitor=plan.monitor, mode=plan.mode, family=family, is_chosen=edge in chosen
            )
    return figure


def plot_paths(source: Source | Mapping[str, Source]) -> Figure:
    """Draw paths below one another, every state as long as its epochs.

    Args:
        source: The folder of a search, or a `SearchResult`, whose best path of every branch is drawn; or several by
            name, of each of which the best path is.

    Raises:
        ValueError: If there is no path yet.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Figure 5.
    """
    paths: dict[str, OptimizationPath] = {}
    if isinstance(source, Mapping):
        for name, each in source.items():
            path = _known(each)[1].path()
            if path is not None:
                paths[name] = path
    else:
        search = _known(source)[1]
        paths = dict(search.paths())
        best = search.path()
        if not paths and best is not None:
            paths = {"the path so far": best}
    if not paths:
        raise ValueError("`source` must have a path, got a search in which no training has come to a value yet.")
    return paths_figure(paths)


def plot_comparison(source: Source) -> Figure:
    """Draw what a search came to beside what it is compared with.

    What was tested: the search, the delivery, the control and the grid, each with its members alone. Where nothing
    was, the validation of the path beside that of hand-tuned trainings and of the path's variants.

    Args:
        source: The folder of a search, or a `SearchResult`.

    Raises:
        ValueError: If there is nothing to compare with.
    """
    plan, _, folder = _known(source)
    tested = [row for row in tested_of(folder) if row.value is not None] if plan.kind == "plan" else []
    rows: list[tuple[str, float, tuple[float, ...], bool]] = [
        (f"{row.title}\n{row.cost.epochs:g} epochs", row.value, row.members, row.role == "delivered")
        for row in tested
        if row.value is not None
    ]
    metric = tested[0].metric if len(rows) > 1 else plan.monitor
    if len(rows) < 2:
        rows = []
        found = comparison_of(folder)
        if found.path_value is not None:
            rows.append((f"the path\n{found.search.epochs:g} epochs searched", found.path_value, (), True))
        if found.grid_best is not None and found.grid is not None:
            name, value, _ = found.grid_best
            rows.append((f"hand-tuned: {name}\n{found.grid.epochs:g} epochs in all", value, (), False))
        rows += [
            (f"variant: {name}\n{epochs:g} epochs", value, (), False) for name, value, epochs, _ in found.variants
        ]
    if len(rows) < 2:
        raise ValueError(
            f"`source` must have something to compare with, got {str(folder)!r}. Run `opplan grid`, `study` or "
            "`control`, or test what was delivered."
        )
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(7.2, 0.62 * len(rows) + 0.9), layout="constrained")
        _draw_rows(figure.add_subplot(), rows, str(metric))
    return figure


def _draw_rows(axes: Axes, rows: Sequence[tuple[str, float, tuple[float, ...], bool]], metric: str) -> None:
    for place, (_, value, members, is_ours) in enumerate(rows):
        colour = PATH if is_ours else OTHER
        axes.plot(members, [place] * len(members), "|", color=POINTS, markersize=9, mew=1.4)
        axes.plot([value], [place], "o", color=colour, markersize=8)
        axes.annotate(
            f"{value:.4f}", (value, place), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8,
            color=colour,
        )  # fmt: skip
    axes.set(yticks=range(len(rows)), yticklabels=[row[0] for row in rows], ylim=(len(rows) - 0.5, -0.7))
    axes.set_xlabel(metric)
    axes.margins(x=0.12)
    axes.grid(axis="x", color=OTHER, alpha=0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _known(source: Source) -> tuple[PlanRecord, Search | Halving, Path]:
    if isinstance(source, str | os.PathLike):
        return *Journal.of(source).read(), Path(source)
    return source.plan, source.search, source.dirpath


def _chosen(search: Search | Halving) -> tuple[Edge, ...]:
    state = search.best_so_far
    return () if state is None else search.way(state)
