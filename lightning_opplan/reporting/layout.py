"""Where the states of a transition graph stand in a picture, how its edges run, and which outcome each one shows."""

import math
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np

from lightning_opplan.planning.graph import START, Edge, TransitionGraph, split_route
from lightning_opplan.planning.outcome import EdgeOutcome, Outcomes

__all__ = ["Places", "base_of", "bend_of", "label_of", "middle_of", "one_way_each", "places_of", "shortened"]

Places = Mapping[str, tuple[float, float]]
"""Column and height of every state."""

_LONGEST: Final = 22  # letters in a line of a state


def base_of(edge: Edge) -> Edge:
    """The edge of the graph that an edge of a beam stands for."""
    return Edge(split_route(edge.parent)[0], edge.child)


def one_way_each(outcomes: Outcomes, winners: Collection[Edge]) -> Outcomes:
    """One outcome for every edge of the graph: of a beam's, that of the way that was chosen, or of the first."""
    by_base: dict[Edge, EdgeOutcome] = {}
    for edge, outcome in sorted(outcomes.items(), key=lambda item: (item[0] not in winners, item[0])):
        by_base.setdefault(base_of(edge), outcome)
    return by_base


def places_of(graph: TransitionGraph) -> Places:
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


def bend_of(edge: Edge, places: Places) -> float:
    """Lead an edge that skips a column to the side where it keeps furthest from the states in between."""
    if places[edge.child][0] - places[edge.parent][0] == 1:
        return 0.0

    def clearance(bend: float) -> float:
        middle = middle_of(edge, places, bend)
        return min(math.dist(middle, place) for state, place in places.items() if state not in edge)

    return max((0.16, -0.16, 0.26, -0.26), key=clearance)


def middle_of(edge: Edge, places: Places, bend: float) -> tuple[float, float]:
    """The middle of an edge's arrow: of a quadratic curve, half way to its control point."""
    (x0, y0), (x1, y1) = places[edge.parent], places[edge.child]
    return (x0 + x1) / 2 + bend * (y1 - y0) / 2, (y0 + y1) / 2 - bend * (x1 - x0) / 2


def label_of(state: str) -> str:
    """Return the name of a state in lines, one for its branch."""
    return "\n".join(map(shortened, state.split("/")))


def shortened(text: str) -> str:
    """Return a text that is cut where it is too long for a line."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
