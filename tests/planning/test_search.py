from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.outcome import Work
from lightning_opplan.planning.search import Search, probability_of_better
from tests.helpers.searches import lattice, outcome, solve


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
    search, order = solve(graph, lambda route: float(sum(gains[edge] for edge in route)), mode=mode)
    assert sorted(order) == sorted(graph.edges)
    assert search.is_complete

    def all_values(state):
        if state == START:
            return [0]
        return [value + gains[Edge(p, state)] for p in graph.parents(state) for value in all_values(p)]

    best = max if mode == "max" else min
    brute_force = best(best(all_values(final)) for final in graph.finals.values())
    way = search.way(search.best_so_far)
    assert sum(gains[edge] for edge in way) == brute_force
    assert way[0].parent == START
    assert all(before.child == after.parent for before, after in pairwise(way))
    path = search.path()
    assert path.value == brute_force
    path.check(graph)


@given(random_graphs(), st.integers(1, 3), st.sampled_from(["max", "min"]), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_search_told_one_by_one_knows_what_one_told_at_once_knows(graph, beam, mode, random):
    search = Search(graph, mode=mode, beam=beam)
    running = []
    while True:
        while len(running) < 3 and (work := search.ask(running)) is not None:
            running.append(work.edge)
        if not running:
            break
        edge = running.pop(random.randrange(len(running)))
        search.tell(outcome(edge, random.choice([None, random.randrange(4), random.random()]), random.randrange(9)))
        same = Search(graph, mode=mode, beam=beam, outcomes=search.outcomes.values())
        for name in ("winners", "leaders", "best_so_far", "is_complete"):
            assert getattr(search, name) == getattr(same, name)
        assert search.path() == same.path()
        assert search.ask(running) == same.ask(running)


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_an_edge_runs_only_after_all_edges_into_its_parent(graph):
    _, order = solve(graph, len)
    for position, edge in enumerate(order):
        before = set(order[:position])
        assert all(Edge(grandparent, edge.parent) in before for grandparent in graph.parents(edge.parent))


def asked(search):
    """All edges that can run now, the most urgent first."""
    running = []
    while (work := search.ask(running)) is not None:
        running.append(work.edge)
    return tuple(running)


def told(graph, rows, **options):
    """A search that knows edges by their values."""
    return Search(graph, outcomes=[outcome(edge, value) for edge, value in rows.items()], **options)


def test_both_branches_can_start_at_once():
    assert {edge.child for edge in asked(Search(lattice()))} == {"cs/1-1", "cs/2-1", "us/1-1", "us/2-1"}


def test_work_of_the_papers_search_runs_to_its_end():
    assert Search(lattice()).ask() == Work(edge=Edge(START, "cs/1-1"), until=None)


def test_paused_edge_is_known_and_asked_for_again():
    search = Search(lattice())
    first = search.ask().edge
    pause = replace(outcome(first, 0.3), is_paused=True)
    search.tell(pause)
    assert dict(search.paused) == {first: pause}
    assert (dict(search.outcomes), search.best_so_far) == ({}, None)
    assert search.ask().edge == first
    assert search.ask([first]).edge != first
    search.tell(outcome(first, 0.4))
    assert not search.paused
    assert search.best_so_far == first.child


def test_outcome_of_an_unknown_edge_is_refused():
    with pytest.raises(ValueError, match="must be of an edge of the search, got 'start → cs/3-1'. Did you mean"):
        Search(lattice()).tell(outcome((START, "cs/3-1"), 0.1))


DIAMOND = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), (START, "b"), ("a", "c"), ("b", "c")])


def test_equal_values_prefer_fewer_epochs():
    rows = [((START, "a"), 0.5, 9), ((START, "b"), 0.5, 2), (("a", "c"), 0.9, 1), (("b", "c"), 0.9, 1)]
    search = Search(DIAMOND, outcomes=[outcome(*row) for row in rows])
    assert search.winners["c"].parent == "b"


def test_diverged_edges_lose_and_block_nothing():
    search = told(DIAMOND, {(START, "a"): None, (START, "b"): 0.1})
    assert asked(search) == (Edge("b", "c"),)
    search.tell(outcome(("b", "c"), 0.2))
    assert search.best_so_far == "c"
    assert search.way("c") == (Edge(START, "b"), Edge("b", "c"))


def test_a_search_without_a_finite_path_ends_without_a_result():
    graph = TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b")])
    search = told(graph, {(START, "a"): None})
    assert search.ask() is None
    assert search.is_complete
    assert search.path() is None


def test_a_search_whose_final_states_all_diverged_ends_without_a_result():
    graph = TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b")])
    search = told(graph, {(START, "a"): 0.5})
    assert search.path().steps[-1].state == "a"
    search.tell(outcome(("a", "b"), None))
    assert search.is_complete
    assert search.path() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "maximize"}, "`mode` must be one of 'max', 'min', got 'maximize'"),
        ({"beam": 0}, "`beam` must be at least 1"),
    ],
    ids=["mode", "beam"],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Search(lattice(), **options)


def test_there_is_no_result_before_the_first_edge():
    search = Search(lattice(lengths=2, rates=1))
    assert search.path() is None
    assert not search.is_complete


@pytest.mark.parametrize(("mode", "best"), [("max", "us/2-1"), ("min", "cs/2-1")])
def test_best_branch_wins(mode, best):
    graph = lattice(lengths=2, rates=1)
    search, _ = solve(graph, lambda route: float(route[-1].child.startswith("us")), mode=mode)
    assert search.best_so_far == best


@given(random_graphs(), st.sampled_from(["max", "min"]), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_a_wide_beam_finds_the_best_of_all_paths(graph, mode, random):
    """Values that depend on the whole way defeat the dynamic programme; a beam that keeps all ways is exhaustive."""
    values = {}

    def value_of(route):
        way = tuple(edge.child for edge in route)
        assert way not in values  # no way is trained twice
        return values.setdefault(way, random.random())

    search, _ = solve(graph, value_of, mode=mode, beam=200)

    def all_ways(state):
        if state == START:
            return [()]
        return [(*way, state) for parent in graph.parents(state) for way in all_ways(parent)]

    finals = [way for final in graph.finals.values() for way in all_ways(final)]
    assert set(values) == {way for state in graph.states[1:] for way in all_ways(state)}
    found = tuple(edge.child for edge in search.way(search.best_so_far))
    best = max if mode == "max" else min
    assert values[found] == best(values[way] for way in finals)
    assert set(search.outcomes) == set(search.edges)


def test_a_beam_of_two_follows_the_second_best_way():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), ("a", "b"), (START, "b"), ("b", "c")])
    search = told(graph, {(START, "a"): 0.1, ("a", "b"): 0.5, (START, "b"): 0.4}, beam=2)
    assert asked(search) == (Edge("b", "c"), Edge("b#2", "c"))
    assert search.edges[-2:] == (Edge("b", "c"), Edge("b#2", "c"))
    assert search.parent(Edge("b#2", "c")) == Edge(START, "b")
    search.tell(outcome(("b", "c"), 0.6))
    search.tell(outcome(("b#2", "c"), 0.7))
    assert search.way("c") == (Edge(START, "b"), Edge("b#2", "c"))


def test_names_of_ways_are_kept_for_beams():
    with pytest.raises(ValueError, match="must name states without '#' and a number at the end, got 'a#2'"):
        TransitionGraph({"a#2": {}}, [(START, "a#2")])


def test_edges_with_the_longest_way_behind_them_start_first():
    graph = TransitionGraph(
        {"side": {}, "long": {}, "longer": {}, "end": {}},
        [(START, "side"), (START, "long"), ("long", "longer"), ("longer", "end"), ("side", "end")],
    )
    assert asked(Search(graph)) == (Edge(START, "long"), Edge(START, "side"))
    assert Search(graph).ask([Edge(START, "long")]).edge == Edge(START, "side")


def race(**options):
    """A state with three ways into it, of which the parents are worth 0.2, 0.8 and 0.5."""
    names = ["a", "b", "c"]
    graph = TransitionGraph(
        {name: {} for name in [*names, "end"]},
        [*((START, name) for name in names), *((name, "end") for name in names), (START, "end")],
    )
    rows = {(START, name): value for name, value in zip(names, [0.2, 0.8, 0.5], strict=True)}
    return told(graph, {**rows, **options.pop("further", {})}, racing=True, **options)


def test_racing_runs_the_way_from_the_best_parent_first():
    search = race()
    assert asked(search) == (Edge("b", "end"),)
    assert search.rival(Edge("b", "end")) is None
    search.tell(outcome(("b", "end"), 0.9))
    assert set(asked(search)) == {Edge("a", "end"), Edge("c", "end"), Edge(START, "end")}
    assert search.rival(Edge("a", "end")) == 0.9
    search.tell(outcome(("c", "end"), 0.95))
    assert search.rival(Edge("a", "end")) == 0.9  # whatever else has finished meanwhile
    assert search.rival(Edge(START, "end")) is None


def test_nothing_races_unless_asked_to():
    search = Search(race().graph, outcomes=race().outcomes.values())
    assert len(asked(search)) == 4
    search.tell(outcome(("b", "end"), 0.9))
    assert search.rival(Edge("a", "end")) is None


def test_racing_waits_for_all_parents():
    known = [each for edge, each in race().outcomes.items() if edge.child != "c"]
    assert asked(Search(race().graph, racing=True, outcomes=known)) == (Edge(START, "c"),)


def test_racing_with_a_beam_must_beat_the_last_of_it():
    search = race(beam=2)
    assert asked(search) == (Edge("b", "end"), Edge("c", "end"))
    search.tell(outcome(("b", "end"), 0.9))
    search.tell(outcome(("c", "end"), 0.7))
    assert search.rival(Edge("a", "end")) == 0.7
    diverged = race(beam=2, further={("b", "end"): 0.9, ("c", "end"): None})
    assert diverged.rival(Edge("a", "end")) is None


def test_best_so_far_prefers_a_final_state():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), ("a", "b"), ("a", "c"), ("c", "b")])
    search = told(graph, {(START, "a"): 0.9})
    assert (search.best_so_far, search.path().is_complete) == ("a", False)
    search.tell(outcome(("a", "b"), 0.4))
    assert (search.best_so_far, search.path().is_complete) == ("b", True)
    assert search.way("b") == (Edge(START, "a"), Edge("a", "b"))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_probability_of_a_better_parent_is_that_of_normal_values(mode):
    first = replace(outcome((START, "a"), 0.80), standard_error=0.02)
    second = replace(outcome((START, "b"), 0.77), standard_error=0.01)
    expected = scipy.stats.norm(-0.03 if mode == "max" else 0.03, (0.02**2 + 0.01**2) ** 0.5).sf(0)
    assert probability_of_better(second, first, mode) == pytest.approx(expected)
    assert probability_of_better(replace(second, standard_error=None), first, mode) is None
    same = replace(first, standard_error=0.0)
    assert probability_of_better(same, same, mode) == 0.5
