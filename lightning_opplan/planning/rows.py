"""What a search knows as rows, one per edge and one per state, to be filtered, sorted and put into tables."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from lightning_opplan.planning.curves import Family, fit_of
from lightning_opplan.planning.graph import Edge, Setting, split_route
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.knee import Point
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search

__all__ = ["EdgeRow", "EdgeStatus", "StateRow", "best_edges", "edge_rows", "state_rows"]

EdgeStatus = Literal["finished", "paused", "diverged", "to come"]


@dataclass(frozen=True, kw_only=True)
class EdgeRow:
    """An edge, and what became of it; what it does not have is ``None``.

    Attributes:
        parent: State whose weights it started from.
        child: State that it trained.
        branch: Branch of the child; empty where there are none.
        setting: Setting of the child.
        status: What became of it. An arm of a budgeted search that could be gone on with is ``"paused"``.
        value: What the child is worth by this way.
        standard_error: Of the value.
        knee_epoch: Epochs after which the weights were taken.
        epochs_run: Epochs that were trained.
        seconds: Wall time.
        device_hours: Hours, times devices.
        num_samples: Samples trained on.
        clip_frames: Frames of clips trained on.
        r_squared: Of the fitted curve.
        is_best: Whether it is the best way into its child, as far as is known; of an arm, whether it is the best one.
        is_on_path: Whether the path goes along it.
        stopping_reason: Why training ended.
        curve: Epoch and value of every validation.
    """

    parent: str
    child: str
    branch: str
    setting: Setting
    status: EdgeStatus
    value: float | None = None
    standard_error: float | None = None
    knee_epoch: float | None = None
    epochs_run: float = 0.0
    seconds: float = 0.0
    device_hours: float = 0.0
    num_samples: int | None = None
    clip_frames: int | None = None
    r_squared: float | None = None
    is_best: bool = False
    is_on_path: bool = False
    stopping_reason: str | None = None
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StateRow:
    """A state, and what it is worth by the best way that is known; what it does not have is ``None``.

    Attributes:
        state: Its name.
        branch: Its branch; empty where there are none.
        setting: Its setting.
        is_final: Whether a path may end here.
        value: What it is worth.
        standard_error: Of the value.
        best_parent: The parent of the best way into it.
        epochs: Epochs along that way, from the start.
        num_edges: Edges into it.
        num_finished: Those of them that have finished.
        is_on_path: Whether the path goes through it.
    """

    state: str
    branch: str
    setting: Setting
    is_final: bool
    value: float | None
    standard_error: float | None
    best_parent: str | None
    epochs: float | None
    num_edges: int
    num_finished: int
    is_on_path: bool


def edge_rows(search: Search | Halving, family: Family) -> tuple[EdgeRow, ...]:
    """Return a row for every edge, in the order of the graph.

    Args:
        search: The search.
        family: Family of the curves that are fitted.
    """
    chosen = _chosen(search)
    best = best_edges(search)
    return tuple(_edge_row(search, edge, family, is_best=edge in best, chosen=chosen) for edge in search.edges)


def state_rows(search: Search | Halving) -> tuple[StateRow, ...]:
    """Return a row for every state but the start, in the order of the graph."""
    chosen = {edge.child for edge in _chosen(search)}
    finals = set(search.graph.finals.values())
    rows = []
    for state in search.graph.states[1:]:
        into = [edge for edge in search.edges if edge.child == state]
        leader = search.leaders.get(state)
        outcome = None if leader is None else search.outcome(leader)
        path = None if leader is None else search.path(state)
        rows.append(
            StateRow(
                state=state,
                branch=_branch(search, into[0]),
                setting=search.graph.settings[state],
                is_final=state in finals,
                value=None if outcome is None else outcome.value,
                standard_error=None if leader is None or outcome is None else _error(search, leader, outcome),
                best_parent=None if leader is None else split_route(leader.parent)[0],
                epochs=None if path is None else path.total_epochs,
                num_edges=len(into),
                num_finished=sum(edge in search.outcomes for edge in into),
                is_on_path=state in chosen,
            )
        )
    return tuple(rows)


def _edge_row(
    search: Search | Halving, edge: Edge, family: Family, *, is_best: bool, chosen: Collection[Edge]
) -> EdgeRow:
    branch, setting = _branch(search, edge), search.graph.settings[edge.child]
    outcome = search.outcome(edge)
    if outcome is None:
        return EdgeRow(parent=edge.parent, child=edge.child, branch=branch, setting=setting, status="to come")
    has_diverged = outcome.value is None and not outcome.is_paused
    return EdgeRow(
        parent=edge.parent,
        child=edge.child,
        branch=branch,
        setting=setting,
        status="diverged" if has_diverged else "paused" if outcome.is_paused else "finished",
        value=outcome.value,
        standard_error=_error(search, edge, outcome),
        knee_epoch=None if has_diverged else outcome.knee_epoch,
        epochs_run=outcome.epochs_run,
        seconds=outcome.seconds,
        device_hours=outcome.device_seconds / 3600,
        num_samples=outcome.num_samples,
        clip_frames=outcome.clip_frames,
        r_squared=None if isinstance(search, Halving) else _r_squared(outcome, family, search),
        is_best=is_best,
        is_on_path=edge in chosen,
        stopping_reason=outcome.stopping_reason,
        curve=outcome.curve,
    )


def _chosen(search: Search | Halving) -> tuple[Edge, ...]:
    state = search.best_so_far
    return () if state is None else search.way(state)


def best_edges(search: Search | Halving) -> set[Edge]:
    """Return the edge from the best parent of every state, or the best arm."""
    if isinstance(search, Halving):
        return {edge for edge in search.leaders.values() if edge.child == search.best_so_far}
    return {edge for route, edge in search.leaders.items() if split_route(route)[1] == 0}


def _error(search: Search | Halving, edge: Edge, outcome: EdgeOutcome) -> float | None:
    if not isinstance(search, Halving):
        return outcome.standard_error
    return None if search.value(edge) is None else search.standard_error(edge)


def _r_squared(outcome: EdgeOutcome, family: Family, search: Search) -> float | None:
    fit = fit_of(outcome.curve, family, search.mode)
    return None if fit is None else fit.r_squared


def _branch(search: Search | Halving, edge: Edge) -> str:
    if isinstance(search, Halving):
        return search.arm(edge).branch
    return edge.child.rpartition("/")[0]
