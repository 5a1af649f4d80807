from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.search import (
    EdgeOutcome,
    best_final,
    best_so_far,
    edges_to_run,
    path_to,
    probability_of_better,
    remaining_lengths,
    rival_of,
    runnable_edges,
    searched_edges,
    winning_edges,
)
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


@given(random_graphs(), st.sampled_from(["max", "min"]), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_a_wide_beam_finds_the_best_of_all_paths(graph, mode, random):
    """Values that depend on the whole way defeat the dynamic programme; a beam that keeps all ways is exhaustive."""
    values = {}
    beam = 200
    outcomes = {}

    def way_to(edge, winners):
        return (*(each.child for each in path_to(edge.parent, winners)), edge.child)

    while edges := runnable_edges(graph, outcomes, mode, beam):
        winners = winning_edges(graph, outcomes, mode, beam)
        way = way_to(edges[0], winners)
        assert way not in values  # no way is trained twice
        values[way] = random.random()
        outcomes[edges[0]] = outcome(edges[0], values[way])

    def all_ways(state):
        if state == START:
            return [()]
        return [(*way, state) for parent in graph.parents(state) for way in all_ways(parent)]

    finals = [way for final in graph.finals.values() for way in all_ways(final)]
    assert set(values) == {way for state in graph.states[1:] for way in all_ways(state)}
    final = best_final(graph, outcomes, mode, beam)
    found = tuple(edge.child for edge in path_to(final, winning_edges(graph, outcomes, mode, beam)))
    best = max if mode == "max" else min
    assert values[found] == best(values[way] for way in finals)
    assert set(outcomes) == set(searched_edges(graph, beam))


def test_a_beam_of_two_follows_the_second_best_way():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), ("a", "b"), (START, "b"), ("b", "c")])
    outcomes = {
        edge: outcome(edge, value) for edge, value in [((START, "a"), 0.1), (("a", "b"), 0.5), ((START, "b"), 0.4)]
    }
    outcomes = {Edge(*edge): found for edge, found in outcomes.items()}
    assert runnable_edges(graph, outcomes, beam=2) == (Edge("b", "c"), Edge("b#2", "c"))
    assert searched_edges(graph, 2)[-2:] == (Edge("b", "c"), Edge("b#2", "c"))
    outcomes[Edge("b", "c")] = outcome(("b", "c"), 0.6)
    outcomes[Edge("b#2", "c")] = outcome(("b#2", "c"), 0.7)
    winners = winning_edges(graph, outcomes, beam=2)
    assert path_to("c", winners) == (Edge(START, "b"), Edge("b#2", "c"))


def test_names_of_ways_are_kept_for_beams():
    with pytest.raises(ValueError, match="must name states without '#' and a number at the end, got 'a#2'"):
        TransitionGraph({"a#2": {}}, [(START, "a#2")])


def test_edges_with_the_longest_way_behind_them_start_first():
    graph = TransitionGraph(
        {"side": {}, "long": {}, "longer": {}, "end": {}},
        [(START, "side"), (START, "long"), ("long", "longer"), ("longer", "end"), ("side", "end")],
    )
    assert edges_to_run(graph, {}) == (Edge(START, "long"), Edge(START, "side"))
    assert edges_to_run(graph, {}, [Edge(START, "long")]) == (Edge(START, "side"),)
    assert remaining_lengths(graph)[START] == 3


def race():
    """A state with three ways into it, of which the parents are worth 0.2, 0.8 and 0.5."""
    names = ["a", "b", "c"]
    graph = TransitionGraph(
        {name: {} for name in [*names, "end"]},
        [*((START, name) for name in names), *((name, "end") for name in names), (START, "end")],
    )
    outcomes = {
        Edge(START, name): outcome((START, name), value) for name, value in zip(names, [0.2, 0.8, 0.5], strict=True)
    }
    return graph, outcomes


def test_racing_runs_the_way_from_the_best_parent_first():
    graph, outcomes = race()
    assert edges_to_run(graph, outcomes, racing=True) == (Edge("b", "end"),)
    assert rival_of(Edge("b", "end"), graph, outcomes) is None
    outcomes[Edge("b", "end")] = outcome(("b", "end"), 0.9)
    others = {Edge("a", "end"), Edge("c", "end"), Edge(START, "end")}
    assert set(edges_to_run(graph, outcomes, racing=True)) == others
    assert rival_of(Edge("a", "end"), graph, outcomes) == 0.9
    outcomes[Edge("c", "end")] = outcome(("c", "end"), 0.95)
    assert rival_of(Edge("a", "end"), graph, outcomes) == 0.9  # whatever else has finished meanwhile
    assert rival_of(Edge(START, "end"), graph, outcomes) is None


def test_racing_waits_for_all_parents():
    graph, outcomes = race()
    del outcomes[Edge(START, "c")]
    assert edges_to_run(graph, outcomes, racing=True) == (Edge(START, "c"),)


def test_racing_with_a_beam_must_beat_the_last_of_it():
    graph, outcomes = race()
    assert edges_to_run(graph, outcomes, racing=True, beam=2) == (Edge("b", "end"), Edge("c", "end"))
    outcomes[Edge("b", "end")] = outcome(("b", "end"), 0.9)
    outcomes[Edge("c", "end")] = outcome(("c", "end"), 0.7)
    assert rival_of(Edge("a", "end"), graph, outcomes, beam=2) == 0.7
    outcomes[Edge("c", "end")] = outcome(("c", "end"), None)
    assert rival_of(Edge("a", "end"), graph, outcomes, beam=2) is None


def test_best_so_far_prefers_a_final_state():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), ("a", "b"), ("a", "c"), ("c", "b")])
    assert best_so_far(graph, {}) is None
    outcomes = {Edge(START, "a"): outcome((START, "a"), 0.9)}
    assert best_so_far(graph, outcomes) == "a"
    outcomes[Edge("a", "b")] = outcome(("a", "b"), 0.4)
    assert best_so_far(graph, outcomes) == "b"
    assert path_to("b", winning_edges(graph, outcomes, partial=True)) == (Edge(START, "a"), Edge("a", "b"))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_probability_of_a_better_parent_is_that_of_normal_values(mode):
    first = replace(outcome((START, "a"), 0.80), standard_error=0.02)
    second = replace(outcome((START, "b"), 0.77), standard_error=0.01)
    expected = scipy.stats.norm(-0.03 if mode == "max" else 0.03, (0.02**2 + 0.01**2) ** 0.5).sf(0)
    assert probability_of_better(second, first, mode) == pytest.approx(expected)
    assert probability_of_better(replace(second, standard_error=None), first, mode) is None
    same = replace(first, standard_error=0.0)
    assert probability_of_better(same, same, mode) == 0.5
