from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.search import EdgeOutcome, best_final, path_to, runnable_edges, winning_edges
from tests.planning.test_graph import lattice


def outcome(edge, value, epochs=3):
    return EdgeOutcome(edge=Edge(*edge), value=value, knee_epoch=epochs, epochs_run=epochs + 2)


def solve(graph, value_of, mode="max"):
    """Run a search whose edges are worth what a function of the whole route to them says."""
    outcomes, order = {}, []
    while edges := runnable_edges(graph, outcomes):
        edge = edges[0]
        route = path_to(edge.parent, winning_edges(graph, outcomes, mode))
        outcomes[edge] = outcome(edge, value_of((*route, edge)))
        order.append(edge)
    return outcomes, order


@st.composite
def random_graphs(draw):
    names = [f"s{number}" for number in range(draw(st.integers(1, 6)))]
    pairs = list(combinations([START, *names], 2))
    chosen = set(draw(st.lists(st.sampled_from(pairs), unique=True)))
    for position, name in enumerate(names):  # every state needs a parent
        if not any(child == name for _, child in chosen):
            chosen.add((draw(st.sampled_from([START, *names[:position]])), name))
    return TransitionGraph({name: {} for name in names}, sorted(chosen))


@given(random_graphs(), st.data(), st.sampled_from(["max", "min"]))
@settings(max_examples=200, deadline=None)
def test_search_finds_the_best_path_of_any_graph(graph, data, mode):
    """With values that add up along a path, the dynamic programme equals the best of all paths, one by one."""
    gains = {edge: data.draw(st.integers(-5, 5)) for edge in graph.edges}
    outcomes, order = solve(graph, lambda route: float(sum(gains[edge] for edge in route)), mode)
    assert sorted(order) == sorted(graph.edges)

    def all_values(state):
        if state == START:
            return [0]
        return [value + gains[Edge(p, state)] for p in graph.parents(state) for value in all_values(p)]

    best = max if mode == "max" else min
    brute_force = best(best(all_values(final)) for final in graph.finals.values())
    final = best_final(graph, outcomes, mode)
    path = path_to(final, winning_edges(graph, outcomes, mode))
    assert sum(gains[edge] for edge in path) == brute_force
    assert path[0].parent == START
    assert all(before.child == after.parent for before, after in pairwise(path))


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_an_edge_runs_only_after_all_edges_into_its_parent(graph):
    _, order = solve(graph, len)
    for position, edge in enumerate(order):
        before = set(order[:position])
        assert all(Edge(grandparent, edge.parent) in before for grandparent in graph.parents(edge.parent))


def test_both_branches_can_start_at_once():
    edges = runnable_edges(lattice(), {})
    assert {edge.child for edge in edges} == {"cs/1-1", "cs/2-1", "us/1-1", "us/2-1"}


def test_equal_values_prefer_fewer_epochs():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), (START, "b"), ("a", "c"), ("b", "c")])
    outcomes = {
        Edge(*edge): outcome(edge, value, epochs)
        for edge, value, epochs in [
            ((START, "a"), 0.5, 9), ((START, "b"), 0.5, 2), (("a", "c"), 0.9, 1), (("b", "c"), 0.9, 1),
        ]
    }  # fmt: skip
    assert winning_edges(graph, outcomes)["c"].parent == "b"


def test_diverged_edges_lose_and_block_nothing():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), (START, "b"), ("a", "c"), ("b", "c")])
    outcomes = {edge: outcome(edge, None) for edge in [Edge(START, "a")]}
    outcomes[Edge(START, "b")] = outcome((START, "b"), 0.1)
    assert runnable_edges(graph, outcomes) == (Edge("b", "c"),)
    outcomes[Edge("b", "c")] = outcome(("b", "c"), 0.2)
    assert best_final(graph, outcomes) == "c"
    assert path_to("c", winning_edges(graph, outcomes)) == (Edge(START, "b"), Edge("b", "c"))


def test_a_search_without_a_finite_path_ends_without_a_result():
    graph = TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b")])
    outcomes = {Edge(START, "a"): outcome((START, "a"), None)}
    assert runnable_edges(graph, outcomes) == ()
    assert best_final(graph, outcomes) is None


def test_there_is_no_result_before_the_end():
    graph = lattice(lengths=2, rates=1)
    assert best_final(graph, {}) is None


@pytest.mark.parametrize(("mode", "best"), [("max", "us/2-1"), ("min", "cs/2-1")])
def test_best_branch_wins(mode, best):
    graph = lattice(lengths=2, rates=1)
    outcomes, _ = solve(graph, lambda route: float(route[-1].child.startswith("us")), mode)
    assert best_final(graph, outcomes, mode) == best
