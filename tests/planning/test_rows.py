from dataclasses import replace

import pytest

from lightning_opplan.planning.rows import edge_rows, state_rows
from lightning_opplan.planning.search import Search
from tests.helpers.scripted import rise_and_fall
from tests.helpers.searches import lattice, outcome, solve

CURVE = tuple(enumerate([0.0, *rise_and_fall(6, 16)]))


@pytest.fixture
def search():
    """Half of a search: one edge is paused, one has diverged, and others are to come."""
    solved, order = solve(lattice(lengths=2, rates=2), lambda route: len(route) + len(route[-1].child) / 9)
    known = [replace(solved.outcomes[edge], curve=CURVE, seconds=1800.0, devices=4) for edge in order[:5]]
    known[1] = replace(known[1], value=None)
    known.append(replace(solved.outcomes[order[5]], is_paused=True, value=None))
    return Search(solved.graph, outcomes=known), known


def test_every_edge_has_a_row_that_says_what_became_of_it(search):
    search, known = search
    rows = edge_rows(search, "exponential")
    assert [(row.parent, row.child) for row in rows] == list(search.edges)
    by_edge = {(row.parent, row.child): row for row in rows}
    first, diverged, *_, paused = (by_edge[each.edge] for each in known)
    assert (first.status, first.value, first.knee_epoch, first.epochs_run) == ("finished", known[0].value, 3, 5)
    assert first.device_hours == 2.0
    assert first.setting == search.graph.settings[first.child]
    assert first.branch == first.child.split("/")[0]
    assert first.r_squared > 0.99
    assert (diverged.status, diverged.value, diverged.knee_epoch) == ("diverged", None, None)
    assert paused.status == "paused"
    assert sum(row.status == "to come" for row in rows) == len(rows) - len(known)
    # the path and the best ways, counted from the search itself
    assert {(row.parent, row.child) for row in rows if row.is_best} == set(search.leaders.values())
    assert [(row.parent, row.child) for row in rows if row.is_on_path] == sorted(
        search.way(search.best_so_far), key=search.edges.index
    )


def test_every_state_has_a_row_with_its_best_way(search):
    search, _ = search
    rows = state_rows(search)
    assert [row.state for row in rows] == list(search.graph.states[1:])
    for row in rows:
        values = [each.value for each in search.outcomes.values() if each.edge.child == row.state]
        finite = [value for value in values if value is not None]
        assert row.value == (max(finite) if finite else None)
        assert row.num_finished == len(values)
        assert row.num_edges == len(search.graph.parents(row.state))
        if row.value is not None:
            assert row.epochs == 3 * len(search.way(row.state))
            assert row.best_parent == search.way(row.state)[-1].parent
    assert {row.state for row in rows if row.is_final} == set(search.graph.finals.values())


def test_ways_of_a_beam_have_rows_of_their_own():
    search, _ = solve(lattice(lengths=2, rates=2, branches=()), lambda route: len(route), beam=2)
    rows = edge_rows(search, "exponential")
    assert len(rows) == len(search.edges) > len(search.graph.edges)
    assert sum(row.is_best for row in rows) == len(search.graph.states) - 1
    assert len(state_rows(search)) == len(search.graph.states) - 1


def test_edge_without_a_curve_has_no_fit():
    graph = lattice(lengths=1, rates=1, branches=())
    (row,) = edge_rows(Search(graph, outcomes=[outcome(graph.edges[0], 0.5)]), "exponential")
    assert row.r_squared is None
