"""The search as one value: the dynamic programme over the transition graph (section 3.2, eq. 2).

What a search knows are the outcomes that it was told; everything else follows from them and the graph. So it can be
stopped anywhere, made anew from a journal, and run on any number of workers.

With a `beam` of k, the k best ways into a state are all followed. The r-th best of state ``2-1`` is the parent
``2-1#r`` of further edges; the best one is ``2-1`` itself.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import get_args

from lightning_opplan.messages import checked_choice, suggestion
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.outcome import EdgeOutcome, Outcomes, Work
from lightning_opplan.planning.path import OptimizationPath, PathStep

__all__ = ["Search", "probability_of_better"]


class Search:
    """Where a search stands, and what it wants to know next.

    Drive it with trainings of any kind: `ask` names an edge to train, `tell` takes what became of it.

    Args:
        graph: The transition graph.
        mode: Whether a higher or a lower value is better.
        beam: Ways into a state that are followed; 1 is the paper's.
        racing: Hold the edges into a state back until the one from its best parent (with a beam: the first `beam` of
            them) has finished, which the others then race against: see `rival`.
        outcomes: What is known already.

    Example:
        >>> graph = TransitionGraph({"warm": {"lr": 0.1}, "cool": {"lr": 0.01}}, [("start", "warm"), ("warm", "cool")])
        >>> search = Search(graph)
        >>> while (work := search.ask()) is not None:
        ...     search.tell(EdgeOutcome(edge=work.edge, value=0.5, knee_epoch=3, epochs_run=13))
        >>> str(search.path())
        'warm × 3 → cool × 3'
    """

    def __init__(
        self,
        graph: TransitionGraph,
        *,
        mode: Mode = "max",
        beam: int = 1,
        racing: bool = False,
        outcomes: Iterable[EdgeOutcome] = (),
    ) -> None:
        checked_choice("mode", mode, get_args(Mode))
        if beam < 1:
            raise ValueError(f"`beam` must be at least 1, got {beam!r}.")
        self.graph, self.mode, self.beam, self.racing = graph, mode, beam, racing
        self.edges = _searched_edges(graph, beam)
        self._known_edges = frozenset(self.edges)
        self._outcomes: dict[Edge, EdgeOutcome] = {}
        self._paused: dict[Edge, EdgeOutcome] = {}
        self._remaining = _remaining_lengths(graph)
        # What is decided for good, and what would be if there were no further edges.
        self._settled = _Ranking(graph, mode, beam, is_final=True)
        self._leading = _Ranking(graph, mode, beam, is_final=False)
        for outcome in outcomes:
            self._note(outcome)
        for ranking in (self._settled, self._leading):
            ranking.renew(graph.states[1:], self._outcomes)

    def ask(self, running: Collection[Edge] = ()) -> Work | None:
        """Return the most urgent piece of work: an edge with the longest way to a final state behind it.

        An edge whose parent can only be reached by diverged trainings never becomes work; neither do the edges that
        need it.

        Args:
            running: Edges to leave out, as they run now.

        Returns:
            The work, or ``None`` if there is none before one of the running edges has finished.
        """
        ready = [edge for edge in self._open() if edge not in running]
        if self.racing:
            ready = [edge for edge in ready if self._may_race(edge)]
        # Of equal urgency, the edges into earlier states come first.
        chosen = max(ready, key=lambda edge: self._remaining[edge.child], default=None)
        return None if chosen is None else Work(edge=chosen)

    def tell(self, outcome: EdgeOutcome) -> None:
        """Take what became of an edge: finished, or paused.

        Raises:
            ValueError: If it is no edge of this search.
        """
        self._note(outcome)
        if not outcome.is_paused:
            for ranking in (self._settled, self._leading):
                ranking.renew([outcome.edge.child], self._outcomes)

    @property
    def outcomes(self) -> Outcomes:
        """The edges that have finished."""
        return MappingProxyType(self._outcomes)

    @property
    def paused(self) -> Outcomes:
        """The edges that have been paused and have not finished since."""
        return MappingProxyType(self._paused)

    @property
    def known(self) -> tuple[EdgeOutcome, ...]:
        """All that the search was told: the edges that have been paused or have finished."""
        return (*self._paused.values(), *self._outcomes.values())

    @property
    def is_complete(self) -> bool:
        """Whether every edge that can run has finished."""
        return not self._open()

    @property
    def winners(self) -> Mapping[str, Edge]:
        """The best edge into every state whose parents are decided: i* of eq. 2, and the ``#r`` best of a beam.

        Of two equal values the one with fewer epochs along its whole path wins, then the earlier parent.
        """
        return self._settled.winners

    @property
    def leaders(self) -> Mapping[str, Edge]:
        """The same by the edges that have finished, as if there were no others."""
        return self._leading.winners

    @property
    def best_so_far(self) -> str | None:
        """The best final state, or the best of all as long as no final one has been reached.

        ``None`` before the first finite value, and in the end if no final state has one.

        Of two equal values the one with fewer epochs along its path wins, then the state that was named first.
        """
        best = self._best(self.graph.finals.values())
        return best if best is not None or self.is_complete else self._best(self.graph.states[1:])

    def outcome(self, edge: Edge) -> EdgeOutcome | None:
        """Return what is known of an edge: what it came to, or how far it is."""
        return self._outcomes.get(edge, self._paused.get(edge))

    def paths(self, *, monitor: str | None = None) -> Mapping[str, OptimizationPath]:
        """Return the best path of every branch whose final state has been reached."""
        finals = self.graph.finals.items()
        found = {branch: self.path(final, monitor=monitor) for branch, final in finals if final in self.leaders}
        return {branch: path for branch, path in found.items() if path is not None}

    def parent(self, edge: Edge) -> Edge | None:
        """Return the edge whose weights a further one starts from, by what is decided; ``None`` from the start."""
        return None if edge.parent == START else self.winners[edge.parent]

    def way(self, state: str) -> tuple[Edge, ...]:
        """Return the edges of the best way to a state, as far as is known: P of eq. 2."""
        edges = []
        while state != START:
            edges.append(self.leaders[state])
            state = edges[-1].parent
        return tuple(reversed(edges))

    def path(self, state: str | None = None, *, monitor: str | None = None) -> OptimizationPath | None:
        """Return the best path, as far as is known; ``None`` as long as no edge has a finite value.

        Args:
            state: Where it ends; by default in the best state.
            monitor: The metric that the values are of.
        """
        state = state or self.best_so_far
        if state is None:
            return None
        steps = [
            PathStep(
                state=edge.child,
                epochs=self._outcomes[edge].knee_epoch,
                setting=self.graph.settings[edge.child],
                value=self._outcomes[edge].value,
            )
            for edge in self.way(state)
        ]
        is_final = state in self.graph.finals.values()
        return OptimizationPath(steps=tuple(steps), monitor=monitor, mode=self.mode, is_complete=is_final)

    def rival(self, edge: Edge) -> float | None:
        """Return the value that a racing edge has to reach, or ``None`` if it is among the first to run.

        An edge from the start has none: its curve begins far below its rivals', and what it will reach is the least
        certain. The rival follows from settled parents alone, so it is the same on any number of workers.
        """
        if not self.racing or edge.parent == START:
            return None
        first = self._race_order(edge.child)[: self.beam]
        if edge in first:
            return None
        values = [self._outcomes[other].value for other in first if other in self._outcomes]
        finite = [value for value in values if value is not None]
        if len(finite) < self.beam:
            return None
        return min(finite) if self.mode == "max" else max(finite)

    def _note(self, outcome: EdgeOutcome) -> None:
        edge = outcome.edge
        if edge not in self._known_edges:
            raise ValueError(
                f"`outcome` must be of an edge of the search, got {str(edge)!r}. "
                + suggestion(str(edge), map(str, self.edges), label="Edges")
            )
        if outcome.is_paused:
            self._paused[edge] = outcome
        else:
            self._paused.pop(edge, None)
            self._outcomes[edge] = outcome

    def _open(self) -> list[Edge]:
        """The edges that can run: not finished, and their parent state settled."""
        ranking = self._settled
        return [e for state in self.graph.states[1:] for e in ranking.incoming[state] if e not in self._outcomes]

    def _best(self, states: Iterable[str]) -> str | None:
        leading = self._leading
        reached = [state for state in states if state in leading.winners]
        return min(reached, key=lambda state: leading.standing(state, self._outcomes), default=None)

    def _may_race(self, edge: Edge) -> bool:
        order = self._race_order(edge.child)[: self.beam]
        return edge in order or (bool(order) and all(first in self._outcomes for first in order))

    def _race_order(self, state: str) -> list[Edge]:
        """The edges into a state, the one from the best parent first; none as long as a parent is undecided."""
        if state not in self._settled.complete:
            return []

        def worth(edge: Edge) -> float:
            if edge.parent == START:
                return -math.inf
            return -self._settled.standing(edge.parent, self._outcomes)[0]

        return sorted(self._settled.incoming[state], key=lambda edge: -worth(edge))


class _Ranking:
    """The ways into every state, the best first; renewed where an outcome changes it.

    Attributes:
        incoming: The edges into every state that are known to be needed.
        complete: The states of which all incoming edges are known, as their parents are decided.
        winners: The best edge into each decided state, and the others of a beam.
    """

    def __init__(self, graph: TransitionGraph, mode: Mode, beam: int, *, is_final: bool) -> None:
        self._graph, self._sign, self._beam, self._is_final = graph, 1.0 if mode == "max" else -1.0, beam, is_final
        self._position = {state: position for position, state in enumerate(graph.states)}
        self._ranked: dict[str, list[Edge] | None] = {}
        self._epochs: dict[str, float] = {START: 0.0}  # along the whole way, by route
        self.incoming: dict[str, list[Edge]] = {}
        self.complete: set[str] = set()
        self.winners: dict[str, Edge] = {}

    def renew(self, states: Iterable[str], outcomes: Outcomes) -> None:
        """Rank the ways into some states anew, and into those behind them as far as that changes anything."""
        waiting = [self._position[state] for state in states]
        heapify(waiting)
        done = -1
        while waiting:
            position = heappop(waiting)
            if position == done:
                continue
            done, state = position, self._graph.states[position]
            if self._rank(state, outcomes):
                for child in self._graph.children(state):
                    heappush(waiting, self._position[child])

    def standing(self, route: str, outcomes: Outcomes) -> tuple[float, float]:
        """What a decided way is worth, the better the lower, and the epochs along it."""
        value = outcomes[self.winners[route]].value
        assert value is not None
        return -self._sign * value, self._epochs[route]

    def _rank(self, state: str, outcomes: Outcomes) -> bool:
        """Rank the ways into one state; returns whether anything changed for the states behind it."""
        edges: list[Edge] = []
        is_decided = True
        for parent in self._graph.parents(state):
            if parent == START:
                edges.append(Edge(START, state))
                continue
            ways = self._ranked.get(parent)
            if ways is None:
                is_decided = False
            else:
                edges += [Edge(_route(parent, rank), state) for rank in range(min(self._beam, len(ways)))]
        self.incoming[state] = edges
        if is_decided:
            self.complete.add(state)
        finite = []
        for edge in edges:
            outcome = outcomes.get(edge)
            is_decided = is_decided and outcome is not None
            if outcome is not None and outcome.value is not None:
                finite.append((-self._sign * outcome.value, self._epochs[edge.parent] + outcome.knee_epoch, edge))
        before = self._known(state)
        if is_decided or not self._is_final:
            finite.sort(key=lambda row: row[:2])
            ranked = [edge for *_, edge in finite]
            self._ranked[state] = ranked
            for rank, (_, epochs, edge) in enumerate(finite):
                self._epochs[_route(state, rank)] = epochs
                if rank < self._beam:
                    self.winners[_route(state, rank)] = edge
        else:
            self._ranked[state] = None
        return self._known(state) != before

    def _known(self, state: str) -> object:
        """What the states behind a state go by."""
        ranked = self._ranked.get(state)
        if ranked is None:
            return None
        return [(edge, self._epochs[_route(state, rank)]) for rank, edge in enumerate(ranked[: self._beam])]


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


def _searched_edges(graph: TransitionGraph, beam: int) -> tuple[Edge, ...]:
    """All edges that a search may run: those of the graph, from each of the ways into their parent."""
    ways = {START: 1}
    for state in graph.states[1:]:
        ways[state] = sum(min(beam, ways[parent]) for parent in graph.parents(state))
    return tuple(
        Edge(_route(edge.parent, rank), edge.child)
        for edge in graph.edges
        for rank in range(min(beam, ways[edge.parent]))
    )


def _remaining_lengths(graph: TransitionGraph) -> dict[str, int]:
    """The number of edges on the longest way from every state to where it leads no further."""
    lengths: dict[str, int] = {}
    for state in reversed(graph.states):
        lengths[state] = max((1 + lengths[child] for child in graph.children(state)), default=0)
    return lengths


def _route(state: str, rank: int) -> str:
    return state if rank == 0 else f"{state}#{rank + 1}"
