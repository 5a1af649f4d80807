"""What a search is made of, and what it comes to."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from matplotlib.figure import Figure

from lightning_opplan.messages import OpplanError
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Axis, Setting, TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, Kind, PlanRecord
from lightning_opplan.planning.options import ExecutorOptions, SearchOptions
from lightning_opplan.planning.outcome import Outcomes
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.rows import EdgeRow, StateRow, edge_rows, state_rows
from lightning_opplan.planning.schedule import FixedStage
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.space import Arms
from lightning_opplan.reporting.plots import plot_comparison, plot_curves, plot_graph, plot_paths
from lightning_opplan.reporting.tables import TableName, data_frame, records_of
from lightning_opplan.tuner.edges.code import code_hashes
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.edges.store import EdgeFolders
from lightning_opplan.tuner.executors.processes import EdgeExecutor
from lightning_opplan.tuner.loop import EdgeListener

if TYPE_CHECKING:
    import pandas

__all__ = ["Planned", "SearchError", "SearchResult", "SearchSpec", "result_of"]


class SearchError(OpplanError, RuntimeError):
    """A search that has no result, or not yet."""


class Planned(Protocol):
    """Whatever knows what is searched, such as a `PathSearchTuner`."""

    @property
    def spec(self) -> "SearchSpec":
        """What is searched, and how."""


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """All that a search is made of; `PathSearchTuner` describes the arguments.

    Attributes:
        is_mode_given: Whether somebody has said that a higher value is better.
        kind: What is searched: a plan, or chains, those of a grid for one.
        axes: What the graph or the space was made of, as far as it was made of anything.
        branches: The same.
        arms: For a search with a budget: the settings that it tries, of which the graph is made.
        stages: For chains: epochs and schedule of every state, in place of the knee.
        trainings: For chains: what their report says of them.
    """

    graph: TransitionGraph
    recipe: Recipe
    monitor: str
    mode: Mode
    dirpath: Path
    options: SearchOptions
    executor: ExecutorOptions | EdgeExecutor
    seed: int
    on_edge_end: EdgeListener | None = None
    is_mode_given: bool = True
    kind: Kind = "plan"
    axes: Sequence[Axis] = ()
    branches: Mapping[str, Setting] = field(default_factory=dict)
    arms: Arms | None = None
    stages: Mapping[str, FixedStage] = field(default_factory=dict)
    trainings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> PlanRecord:
        """The first line of the journal."""
        return PlanRecord(
            graph=self.graph,
            monitor=self.monitor,
            mode=self.mode,
            seed=self.seed,
            kind=self.kind,
            trainings=self.trainings,
            arms=self.arms,
            options=self.options,
            experiment=self.recipe.describe(),
            code=code_hashes(self.recipe.code()),
        )


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        path: The best path.
        outcomes: All edges that have finished.
        weights: File of the weights at the end of the path, as trained in the search.
        ends: Files of the weights at the end of every branch, or chain, that has one.
        is_complete: Whether all edges were run; otherwise the path is the best of those that were, as far as the
            budget went.
        plan: What was searched.
        search: All that the search knows.
        dirpath: Its folder.

    Example:
        >>> result = SearchResult.load("runs/ucf101")  # doctest: +SKIP
        >>> sorted(result.edges(), key=lambda row: row.device_hours)[-1].child  # doctest: +SKIP
        'uniform/3-3'
    """

    path: OptimizationPath
    outcomes: Outcomes
    weights: Path
    ends: Mapping[str, Path] = field(default_factory=dict)
    is_complete: bool = True
    plan: PlanRecord = field(repr=False, compare=False)
    search: Search | Halving = field(repr=False, compare=False)
    dirpath: Path = field(repr=False, compare=False)

    def edges(self) -> tuple[EdgeRow, ...]:
        """Return a row for every edge: setting, value, knee, cost and curve, and how well it was fitted."""
        return edge_rows(self.search, self.plan.options.rule.curve)

    def states(self) -> tuple[StateRow, ...]:
        """Return a row for every state: what it is worth, by which parent, and after how many epochs."""
        return state_rows(self.search)

    def to_pandas(self, table: TableName = "edges") -> "pandas.DataFrame":
        """Return a table as a pandas DataFrame.

        Args:
            table: ``"edges"``, ``"states"``, or ``"curves"``, which has a row for every validation of every edge.
                Settings have a column for each key.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        return data_frame(records_of(self.plan, self.search, table))

    def plot_graph(self) -> Figure:
        """Draw the transition graph with values and path; see `lightning_opplan.plot_graph`."""
        return plot_graph(self)

    def plot_curves(self, edges: Sequence[tuple[str, str]] | None = None) -> Figure:
        """Draw the curves of edges; see `lightning_opplan.plot_curves`."""
        return plot_curves(self, edges=edges)

    def plot_paths(self) -> Figure:
        """Draw the best path of every branch; see `lightning_opplan.plot_paths`."""
        return plot_paths(self)

    def plot_comparison(self) -> Figure:
        """Draw what was found beside what it is compared with; see `lightning_opplan.plot_comparison`."""
        return plot_comparison(self)

    @classmethod
    def load(cls, dirpath: str | os.PathLike[str]) -> "SearchResult":
        """Return what the search in a folder has found, as far as it has come.

        Raises:
            FileNotFoundError: If there is no search in the folder.
            JournalError: If its journal cannot be read.
            SearchError: If no training of it has come to a value yet.
        """
        folder = Path(dirpath)
        plan, search = Journal.of(folder).read()
        path = search.path(monitor=plan.monitor)
        if path is None:
            raise SearchError(f"The search in {str(folder)!r} has no path yet: no training has come to a value.")
        return result_of(plan, search, path, EdgeFolders(folder, search.edges))


def result_of(
    plan: PlanRecord, search: Search | Halving, path: OptimizationPath, folders: EdgeFolders
) -> SearchResult:
    """Return what a search has found, with the files of the weights.

    Args:
        plan: What was searched.
        search: The search.
        path: Its best path.
        folders: Where its edges write.
    """
    last = search.leaders[path.steps[-1].state]
    return SearchResult(
        path=path,
        outcomes={outcome.edge: outcome for outcome in search.known}
        if isinstance(search, Halving)
        else dict(search.outcomes),
        weights=folders[last].weights,
        ends={
            name: folders[search.leaders[state]].weights
            for name, state in search.graph.finals.items()
            if state in search.leaders
        },
        is_complete=search.is_complete,
        plan=plan,
        search=search,
        dirpath=folders.dirpath,
    )
