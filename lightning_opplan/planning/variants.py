"""Variants of a path: one state more, or one less.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.4: on Kinetics-400 an inserted state
    cost 0.2 to 0.6 points of accuracy, and a skipped one 0.3 to 1.0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lightning_opplan.planning.graph import START, Edge, Setting, TransitionGraph

__all__ = ["Variant", "path_variants", "variants_graph"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A path near another one.

    Attributes:
        kind: What was done to the path; ``"path"`` is the path itself.
        state: The state that was inserted or skipped.
        states: The states, in order.
    """

    kind: Literal["path", "insert", "skip"]
    state: str | None
    states: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name that no other variant has."""
        if self.kind == "path":
            return "the path"
        if self.kind == "skip":
            return f"skip {self.state}"
        position = self.states.index(str(self.state))
        return f"insert {self.state} after {self.states[position - 1] if position else START}"


def path_variants(graph: TransitionGraph, states: Sequence[str]) -> tuple[Variant, ...]:
    """Return a path and its variants with one state inserted or skipped.

    A state is inserted where the graph leads to it and on to the next one. Any state but the last can be skipped, also
    where the graph has no edge past it.

    Args:
        graph: The graph of the search.
        states: The path's states in order, without ``"start"``.

    Example:
        >>> graph = TransitionGraph(
        ...     {"a": {}, "b": {}, "c": {}}, [("start", "a"), ("a", "b"), ("a", "c"), ("b", "c")]
        ... )
        >>> [variant.name for variant in path_variants(graph, ["a", "c"])]
        ['the path', 'insert b after a', 'skip a']
    """
    states = tuple(states)
    variants = [Variant(kind="path", state=None, states=states)]
    for position, (before, after) in enumerate(pairwise((START, *states))):
        for state in graph.states[1:]:
            if state not in states and {Edge(before, state), Edge(state, after)} <= set(graph.edges):
                longer = (*states[:position], state, *states[position:])
                variants.append(Variant(kind="insert", state=state, states=longer))
    for position, state in enumerate(states[:-1]):
        shorter = (*states[:position], *states[position + 1 :])
        variants.append(Variant(kind="skip", state=state, states=shorter))
    return tuple(variants)


def variants_graph(settings: Mapping[str, Setting], variants: Sequence[Variant]) -> TransitionGraph:
    """Return the tree of all variants: what two of them have in common from the start on is trained once.

    Args:
        settings: The setting of each state.
        variants: The variants.
    """
    nodes: dict[str, Setting] = {}
    edges: list[tuple[str, str]] = []
    finals: dict[str, str] = {}
    for variant in variants:
        before = START
        for number, state in enumerate(variant.states, start=1):
            node = " > ".join(variant.states[:number])
            nodes[node] = settings[state]
            edges.append((before, node))
            before = node
        finals[variant.name] = before
    return TransitionGraph(nodes, edges, finals=finals)
