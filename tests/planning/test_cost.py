import pytest

from lightning_opplan.planning.cost import critical_path, makespan, parallel_width, schedule_bound
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.search import Search
from tests.helpers.searches import lattice


@pytest.mark.parametrize(
    ("reversible", "expected"), [(False, [28, 14, 7, 5]), (True, [36, 18, 9, 7])], ids=["basic", "extended"]
)
def test_edges_of_equal_length_keep_all_workers_busy(reversible, expected):
    """The bounds of both branches: all edges over the workers, or the longest way."""
    search = Search(lattice(reversible=reversible))
    equal = dict.fromkeys(search.edges, 1.0)
    assert [schedule_bound(search, equal, workers) for workers in (1, 2, 4, 8)] == expected
    assert [makespan(search, equal, workers) for workers in (1, 2, 4, 8)] == expected


def test_a_beam_counts_every_way():
    search = Search(lattice(lengths=2, rates=2, branches=()), beam=2)
    equal = dict.fromkeys(search.edges, 1.0)
    assert makespan(search, equal, 1) == len(search.edges) == 10
    assert len(critical_path(search, equal)) == 4


def test_four_edges_of_a_branch_run_at_once_at_most():
    assert parallel_width(Search(lattice(branches=("cs",)))) <= 4
    assert parallel_width(Search(TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b")]))) == 1


def test_critical_path_goes_by_lengths():
    graph = TransitionGraph({"a": {}, "b": {}, "c": {}}, [(START, "a"), (START, "b"), ("a", "c"), ("b", "c")])
    search = Search(graph)
    lengths = dict.fromkeys(graph.edges, 1.0) | {Edge(START, "b"): 5.0}
    assert critical_path(search, lengths) == (Edge(START, "b"), Edge("b", "c"))
    assert schedule_bound(search, lengths, 8) == 6.0


def test_width_does_not_depend_on_racing():
    """Edges that wait for one another when all take equally long may not otherwise."""
    graph = lattice(branches=("cs",))
    assert parallel_width(Search(graph, racing=True)) == parallel_width(Search(graph))
