"""The dynamic programme over the transition graph (section 3.2, eq. 2), as pure functions.

A search has no state of its own: what has been decided follows from the graph and the outcomes of the edges that
have finished. So it can be stopped anywhere, resumed from a journal, and run on any number of workers.

With a `beam` of k, the k best ways into a state are all followed. The r-th best of state ``2-1`` is the parent
``2-1#r`` of further edges; the best one is ``2-1`` itself.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph, split_route

__all__ = [
    "EdgeOutcome",
    "Outcomes",
    "best_final",
    "best_so_far",
    "edges_to_run",
    "path_to",
    "probability_of_better",
    "remaining_lengths",
    "rival_of",
    "runnable_edges",
    "searched_edges",
    "winning_edges",
]


@dataclass(frozen=True, kw_only=True)
class EdgeOutcome:
    """What is known of a finished edge.

    Attributes:
        edge: The edge.
        value: What the child state is worth by this route: V of eq. 2. ``None`` if the training diverged, which is
            worse than any value.
        knee_epoch: Epochs after which the weights were taken; 0 if they are the parent's.
        epochs_run: Epochs that were trained.
        curve: ``(epoch, value)`` of every validation, y₀ included where it is known. A value is ``None`` where
            it was not finite.
        seconds: Wall time, over all attempts.
        weights: File of the knee's weights, relative to the edge's folder.
        standard_error: Of the value; ``None`` where nothing was fitted.
        details: Further facts, as plain JSON values: what was spent, the checksum of the weights.
    """

    edge: Edge
    value: float | None
    knee_epoch: float
    epochs_run: float
    curve: tuple[tuple[float, float | None], ...] = ()
    seconds: float = 0.0
    weights: str | None = None
    standard_error: float | None = None
    details: Mapping[str, Any] | None = None


Outcomes = Mapping[Edge, EdgeOutcome]


def searched_edges(graph: TransitionGraph, beam: int = 1) -> tuple[Edge, ...]:
    """Return all edges that a search may run: those of the graph, from each of the ways into their parent."""
    ways = {START: 1}
    for state in graph.states[1:]:
        ways[state] = sum(min(beam, ways[parent]) for parent in graph.parents(state))
    return tuple(
        Edge(_route(edge.parent, rank), edge.child)
        for edge in graph.edges
        for rank in range(min(beam, ways[edge.parent]))
    )


def runnable_edges(graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max", beam: int = 1) -> tuple[Edge, ...]:
    """Return the edges that can run now: not finished, and their parent state settled.

    They come in topological order, those into earlier states first. An edge whose parent can only be reached by
    diverged trainings never becomes runnable; neither do the edges that need it.
    """
    return _survey(graph, outcomes, mode, beam).open


def edges_to_run(
    graph: TransitionGraph,
    outcomes: Outcomes,
    running: Collection[Edge] = (),
    *,
    mode: Mode = "max",
    beam: int = 1,
    racing: bool = False,
) -> tuple[Edge, ...]:
    """Return the edges to start next, the most urgent first: those with the longest way to a final state behind them.

    Args:
        graph: The graph.
        outcomes: The edges that have finished.
        running: The edges that run now; they are left out.
        mode: Whether a higher or a lower value is better.
        beam: Ways into a state that are followed.
        racing: Hold the edges into a state back until the one from its best parent (with a beam: the first `beam` of
            them) has finished, which the others then race against.
    """
    survey = _survey(graph, outcomes, mode, beam)
    candidates = survey.open
    if racing:
        candidates = tuple(edge for edge in candidates if _may_race(edge, survey, outcomes, mode, beam))
    lengths = remaining_lengths(graph)
    ready = [edge for edge in candidates if edge not in running]
    return tuple(sorted(ready, key=lambda edge: -lengths[edge.child]))


def rival_of(
    edge: Edge, graph: TransitionGraph, outcomes: Outcomes, *, mode: Mode = "max", beam: int = 1
) -> float | None:
    """Return the value that a racing edge has to reach, or ``None`` if it is among the first to run.

    An edge from the start has none: its curve begins far below its rivals', and what it will reach is the least
        certain.
    The rival follows from settled parents alone, so it is the same on any number of workers.
    """
    if edge.parent == START:
        return None
    survey = _survey(graph, outcomes, mode, beam)
    first = _race_order(edge.child, survey, outcomes, mode)[:beam]
    if edge in first:
        return None
    values = [outcomes[other].value for other in first if other in outcomes]
    finite = [value for value in values if value is not None]
    if len(finite) < beam:
        return None
    return min(finite) if mode == "max" else max(finite)


def remaining_lengths(graph: TransitionGraph) -> dict[str, int]:
    """Return the number of edges on the longest way from every state to where it leads no further."""
    lengths: dict[str, int] = {}
    for state in reversed(graph.states):
        lengths[state] = max((1 + lengths[child] for child in graph.children(state)), default=0)
    return lengths


def winning_edges(
    graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max", beam: int = 1, *, partial: bool = False
) -> dict[str, Edge]:
    """Return the best edge into every state whose parent is decided: i* of eq. 2, and the ``#r`` best of a beam.

    Of two equal values the one with fewer epochs along its whole path wins, then the earlier parent.

    Args:
        graph: The graph.
        outcomes: The edges that have finished.
        mode: Whether a higher or a lower value is better.
        beam: Ways into a state that are followed.
        partial: Decide by the edges that have finished, as if there were no others.
    """
    ranked = _survey(graph, outcomes, mode, beam, partial=partial).ranked
    return {
        _route(state, rank): edge
        for state, edges in ranked.items()
        if edges is not None
        for rank, edge in enumerate(edges[: max(beam, 1)])
    }


def path_to(state: str, winners: Mapping[str, Edge]) -> tuple[Edge, ...]:
    """Return the edges of the best path from the start to a settled state: P of eq. 2."""
    edges: list[Edge] = []
    while state != START:
        edges.append(winners[state])
        state = winners[state].parent
    return tuple(reversed(edges))


def best_final(graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max", beam: int = 1) -> str | None:
    """Return the best final state once all that can be are settled; ``None`` before, or if all of them diverged.

    Of two equal values the one with fewer epochs along its path wins, then the branch that was named first.
    """
    if runnable_edges(graph, outcomes, mode, beam):
        return None
    winners = winning_edges(graph, outcomes, mode, beam)
    return _best(graph.finals.values(), winners, outcomes, mode)


def best_so_far(graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max", beam: int = 1) -> str | None:
    """Return the best state by the edges that have finished: a final one if any has been reached."""
    winners = winning_edges(graph, outcomes, mode, beam, partial=True)
    return _best(graph.finals.values(), winners, outcomes, mode) or _best(graph.states, winners, outcomes, mode)


def probability_of_better(rival: EdgeOutcome, winner: EdgeOutcome, mode: Mode = "max") -> float | None:
    """Return the probability that `rival` is the better way into a state than the `winner` that was chosen.

    Both values are taken as normal with their standard errors and as independent; ``None`` where an error is unknown.
    """
    if rival.value is None or winner.value is None or rival.standard_error is None or winner.standard_error is None:
        return None
    gain = (rival.value - winner.value) * (1.0 if mode == "max" else -1.0)
    spread = math.hypot(rival.standard_error, winner.standard_error)
    if spread == 0.0:
        return 0.5 if gain == 0.0 else float(gain > 0.0)
    return 0.5 * math.erfc(-gain / spread / math.sqrt(2.0))


def _best(states: Collection[str], winners: Mapping[str, Edge], outcomes: Outcomes, mode: Mode) -> str | None:
    sign = 1.0 if mode == "max" else -1.0
    ranked = []
    for state in states:
        if state in winners:
            value = outcomes[winners[state]].value
            assert value is not None
            epochs = sum(outcomes[edge].knee_epoch for edge in path_to(state, winners))
            ranked.append((-sign * value, epochs, state))
    return min(ranked, key=lambda row: row[:2])[2] if ranked else None


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """Where a search stands.

    Attributes:
        ranked: For every state its finite incoming edges, the best first; ``None`` as long as it is undecided.
        incoming: The edges into every state that are known to be needed.
        complete: The states of which all incoming edges are known, as their parents are decided.
        open: The known edges that have not finished.
    """

    ranked: Mapping[str, tuple[Edge, ...] | None]
    incoming: Mapping[str, tuple[Edge, ...]]
    complete: Collection[str]
    open: tuple[Edge, ...]


def _survey(graph: TransitionGraph, outcomes: Outcomes, mode: Mode, beam: int, *, partial: bool = False) -> _Survey:
    sign = 1.0 if mode == "max" else -1.0
    ranked: dict[str, tuple[Edge, ...] | None] = {}
    incoming: dict[str, tuple[Edge, ...]] = {}
    complete = set()
    total: dict[str, float] = {START: 0.0}
    for state in graph.states[1:]:
        edges: list[Edge] = []
        decided = True
        for parent in graph.parents(state):
            if parent == START:
                edges.append(Edge(START, state))
                continue
            ways = ranked[parent]
            if ways is None:
                decided = False
            else:
                edges += [Edge(_route(parent, rank), state) for rank in range(min(beam, len(ways)))]
        incoming[state] = tuple(edges)
        if decided:
            complete.add(state)
        finite = []
        for edge in edges:
            outcome = outcomes.get(edge)
            decided = decided and outcome is not None
            if outcome is not None and outcome.value is not None:
                finite.append((-sign * outcome.value, total[edge.parent] + outcome.knee_epoch, edge))
        if not (decided or partial):
            ranked[state] = None
            continue
        finite.sort(key=lambda row: row[:2])
        ranked[state] = tuple(edge for *_, edge in finite)
        for rank, (_, epochs, _) in enumerate(finite):
            total[_route(state, rank)] = epochs
    unfinished = tuple(edge for state in graph.states[1:] for edge in incoming[state] if edge not in outcomes)
    return _Survey(ranked=ranked, incoming=incoming, complete=complete, open=unfinished)


def _may_race(edge: Edge, survey: _Survey, outcomes: Outcomes, mode: Mode, beam: int) -> bool:
    order = _race_order(edge.child, survey, outcomes, mode)
    return edge in order[:beam] or (bool(order) and all(first in outcomes for first in order[:beam]))


def _race_order(state: str, survey: _Survey, outcomes: Outcomes, mode: Mode) -> tuple[Edge, ...]:
    """The edges into a state, the one from the best parent first; none as long as a parent is undecided."""
    if state not in survey.complete:
        return ()

    def worth(edge: Edge) -> float:
        if edge.parent == START:
            return -math.inf
        parent, rank = split_route(edge.parent)
        value = outcomes[(survey.ranked[parent] or ())[rank]].value
        assert value is not None
        return value if mode == "max" else -value

    return tuple(sorted(survey.incoming[state], key=lambda edge: -worth(edge)))


def _route(state: str, rank: int) -> str:
    return state if rank == 0 else f"{state}#{rank + 1}"
