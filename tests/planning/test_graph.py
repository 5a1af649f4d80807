import pickle

import numpy as np
import pytest

from lightning_opplan.planning.graph import START, Axis, Edge, TransitionGraph
from tests.helpers.searches import lattice

# Figure 1: states by the paper's numbers in one half, and its edges.
NUMBERS = {1: "1-1", 2: "2-1", 3: "1-2", 4: "3-1", 5: "2-2", 6: "1-3", 7: "3-2", 8: "2-3", 9: "3-3"}
BASIC = "0-1 0-2 1-2 2-4 3-5 5-7 6-8 8-9 1-3 3-6 2-5 5-8 4-7 7-9"
SHORTER = "2-3 4-5 5-6 7-8"


def figure_1(text, half):
    names = {0: START, **{number: f"{half}/{name}" for number, name in NUMBERS.items()}}
    return {(names[int(a)], names[int(b)]) for a, b in (pair.split("-") for pair in text.split())}


@pytest.mark.parametrize(
    ("reversible", "expected"), [(False, BASIC), (True, f"{BASIC} {SHORTER}")], ids=["basic", "extended"]
)
def test_edges_are_those_of_figure_1(reversible, expected):
    graph = lattice(reversible=reversible)
    assert set(graph.edges) == figure_1(expected, "cs") | figure_1(expected, "us")
    assert len(graph.edges) == 2 * len(expected.split())


def test_states_come_in_the_papers_order():
    graph = lattice()
    halves = [f"{half}/{name}" for half in ("cs", "us") for name in NUMBERS.values()]
    assert graph.states == (START, *halves)
    assert dict(graph.finals) == {"cs": "cs/3-3", "us": "us/3-3"}


def test_setting_of_a_state_joins_branch_and_axes():
    setting = lattice().settings["us/3-2"]
    assert setting == {"data.sampling": "us", "data.clip_length": 64, "model.learning_rate": pytest.approx(0.004)}


def test_two_lengths_make_six_states_per_branch():
    graph = lattice(lengths=2)
    assert len(graph.states) == 1 + 2 * 6
    assert graph.finals["cs"] == "cs/2-3"


def test_without_branches_names_are_positions():
    graph = lattice(branches=())
    assert graph.states[1] == "1-1"
    assert dict(graph.finals) == {"final": "3-3"}


def test_single_axis_is_a_chain_with_two_starts():
    graph = TransitionGraph.lattice(axes=[Axis("rate", [{"model.lr": rate} for rate in (0.1, 0.01, 0.001)])])
    assert set(graph.edges) == {(START, "1"), (START, "2"), ("1", "2"), ("2", "3")}


def test_three_axes_step_back_along_the_reversible_one_only():
    axes = [Axis(name, [{name: 0}, {name: 1}], reversible=name == "b") for name in "abc"]
    graph = TransitionGraph.lattice(axes=axes)
    assert ("1-2-1", "2-1-1") in graph.edges
    assert ("1-2-1", "1-1-2") in graph.edges
    assert ("2-1-1", "1-2-1") not in graph.edges


def test_starts_can_be_chosen():
    graph = lattice(starts=["1-1"])
    assert graph.children(START) == ("cs/1-1", "us/1-1")


def test_parents_and_children_are_in_topological_order():
    graph = lattice()
    assert graph.parents("cs/2-2") == ("cs/2-1", "cs/1-2", "cs/3-1")
    assert graph.children("cs/2-2") == ("cs/1-3", "cs/3-2", "cs/2-3")
    for edge in graph.edges:
        assert graph.states.index(edge.parent) < graph.states.index(edge.child)


def test_numpy_scalars_and_tuples_become_plain():
    graph = TransitionGraph({"a": {"x": np.float64(0.5), "y": (np.int64(3), 4)}}, [(START, "a")])
    assert graph.settings["a"] == {"x": 0.5, "y": [3, 4]}
    assert type(graph.settings["a"]["x"]) is float


def test_written_graph_orders_states_and_finds_finals():
    graph = TransitionGraph({"b": {"x": 1}, "a": {"x": 2}}, [("a", "b"), (START, "a")])
    assert graph.states == (START, "a", "b")
    assert graph.edges == (Edge(START, "a"), Edge("a", "b"))
    assert dict(graph.finals) == {"b": "b"}
    assert str(graph.edges[0]) == "start → a"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b"), ("b", "a")]), "must not have a cycle"),
        (lambda: TransitionGraph({"a": {}, "b": {}}, [(START, "a")]), "must lead from 'start' to every state.*'b'"),
        (lambda: TransitionGraph({"warm": {}}, [(START, "wam")]), "Did you mean 'warm'?"),
        (lambda: TransitionGraph({START: {}}, []), "must not name 'start'"),
        (lambda: TransitionGraph({"a": {}}, [(START, "a")], finals={"x": "z"}), "`finals` must name states"),
        (lambda: TransitionGraph({"a": {}}, [(START, "a")], finals={}), "at least one state"),
        (lambda: TransitionGraph({"a": {"x": int}}, [(START, "a")]), "`x` of state 'a' must be a plain value"),
        (lambda: TransitionGraph.lattice(axes=[]), "`axes` must hold at least one axis"),
        (lambda: Axis("clip", []), "`settings` of axis 'clip' must hold at least one"),
        (lambda: Axis("clip", [{"a": 1}, {"b": 1}]), "must all name the same keys"),
        (
            lambda: TransitionGraph.lattice(axes=[Axis("a", [{"x": 1}], True), Axis("b", [{"y": 1}], True)]),
            "`reversible` must be set for one axis at most",
        ),
        (
            lambda: TransitionGraph.lattice(axes=[Axis("a", [{"x": 1}]), Axis("b", [{"x": 1}])]),
            "`x` must be set by one axis",
        ),
        (
            lambda: TransitionGraph.lattice(axes=[Axis("a", [{"x": 1}]), Axis("a", [{"y": 1}])]),
            "must have different names",
        ),
        (
            lambda: TransitionGraph.lattice(axes=[Axis("a", [{"x": 1}])], branches={"p": {"y": 1}, "q": {"z": 1}}),
            "`branches` must all name the same keys",
        ),
        (lambda: lattice(starts=["1-9"]), "`starts` must name positions on the axes, got '1-9'"),
    ],
    ids=[
        "cycle", "unreachable", "unknown", "start", "finals", "no-finals", "plain", "no-axes", "empty", "keys",
        "reversible", "twice", "names", "branches", "starts",
    ],
)  # fmt: skip
def test_unsound_graphs_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_graph_goes_to_other_processes_and_stays_unchangeable():
    graph = lattice()
    other = pickle.loads(pickle.dumps(graph))
    assert (other.states, other.edges, other.settings, other.finals) == (
        graph.states, graph.edges, graph.settings, graph.finals,
    )  # fmt: skip
    with pytest.raises(TypeError):
        other.settings["new"] = {}
