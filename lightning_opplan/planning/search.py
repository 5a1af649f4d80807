"""The dynamic programme over the transition graph (section 3.2, eq. 2), as pure functions.

A search has no state of its own: what has been decided follows from the graph and the outcomes of the edges that
have finished. So it can be stopped anywhere, resumed from a journal, and run on any number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph

__all__ = [
    "EdgeOutcome",
    "Outcomes",
    "best_final",
    "path_to",
    "runnable_edges",
    "winning_edges",
]


@dataclass(frozen=True, kw_only=True)
class EdgeOutcome:
    """What is known of a finished edge.

    Attributes:
        edge: The edge.
        value: What the child state is worth by this route: V of eq. 2, the fitted curve's value at the knee.
            ``None`` if the training diverged, which is worse than any value.
        knee_epoch: Epochs after which the weights were taken; 0 if they are the parent's.
        epochs_run: Epochs that were trained.
        curve: ``(epoch, value)`` of every validation, y₀ included where it is known. A value is ``None`` where
            it was not finite.
        seconds: Wall time, over all attempts.
        weights: File of the knee's weights, relative to the search's directory.
        details: Further facts for the report, as plain JSON values.
    """

    edge: Edge
    value: float | None
    knee_epoch: float
    epochs_run: float
    curve: tuple[tuple[float, float | None], ...] = ()
    seconds: float = 0.0
    weights: str | None = None
    details: Mapping[str, Any] | None = None


Outcomes = Mapping[Edge, EdgeOutcome]


def runnable_edges(graph: TransitionGraph, outcomes: Outcomes) -> tuple[Edge, ...]:
    """Return the edges that can run now: not finished, and their parent state settled.

    They come in topological order, those into earlier states first. An edge whose parent can only be reached by
    diverged trainings never becomes runnable; neither do the edges that need it.
    """
    dead = _dead_states(graph, outcomes)
    return tuple(
        edge
        for edge in graph.edges
        if edge not in outcomes and edge.parent not in dead and _is_decided(graph, outcomes, edge.parent, dead)
    )


def winning_edges(graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max") -> dict[str, Edge]:
    """Return the best edge into every state whose parent is decided: i* of eq. 2.

    Of two equal values the one with fewer epochs along its whole path wins, then the earlier parent.
    """
    dead = _dead_states(graph, outcomes)
    winners: dict[str, Edge] = {}
    total: dict[str, float] = {START: 0.0}
    sign = 1.0 if mode == "max" else -1.0
    for state in graph.states[1:]:
        if state in dead or not _is_decided(graph, outcomes, state, dead):
            continue
        ranked = []
        for parent in graph.parents(state):
            outcome = outcomes.get(Edge(parent, state))
            if outcome is not None and outcome.value is not None:
                ranked.append((-sign * outcome.value, total[parent] + outcome.knee_epoch, outcome.edge))
        _, total[state], winners[state] = min(ranked, key=lambda row: row[:2])
    return winners


def path_to(state: str, winners: Mapping[str, Edge]) -> tuple[Edge, ...]:
    """Return the edges of the best path from the start to a settled state: P of eq. 2."""
    edges: list[Edge] = []
    while state != START:
        edges.append(winners[state])
        state = winners[state].parent
    return tuple(reversed(edges))


def best_final(graph: TransitionGraph, outcomes: Outcomes, mode: Mode = "max") -> str | None:
    """Return the best final state once all that can be are settled; ``None`` before, or if all of them diverged.

    Of two equal values the one with fewer epochs along its path wins, then the branch that was named first.
    """
    if runnable_edges(graph, outcomes):
        return None
    winners = winning_edges(graph, outcomes, mode)
    sign = 1.0 if mode == "max" else -1.0
    ranked = []
    for final in graph.finals.values():
        if final in winners:
            value = outcomes[winners[final]].value
            assert value is not None
            epochs = sum(outcomes[edge].knee_epoch for edge in path_to(final, winners))
            ranked.append((-sign * value, epochs, final))
    return min(ranked, key=lambda row: row[:2])[2] if ranked else None


def _dead_states(graph: TransitionGraph, outcomes: Outcomes) -> set[str]:
    """States that no finite training leads to."""
    dead: set[str] = set()
    for state in graph.states[1:]:
        parents = graph.parents(state)
        if all(parent in dead or _has_diverged(outcomes, Edge(parent, state)) for parent in parents):
            dead.add(state)
    return dead


def _has_diverged(outcomes: Outcomes, edge: Edge) -> bool:
    return edge in outcomes and outcomes[edge].value is None


def _is_decided(graph: TransitionGraph, outcomes: Outcomes, state: str, dead: set[str]) -> bool:
    return all(parent in dead or Edge(parent, state) in outcomes for parent in graph.parents(state))
