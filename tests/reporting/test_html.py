import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.search import path_to, winning_edges
from lightning_opplan.reporting import write_report
from tests.conftest import rise_and_fall
from tests.planning.test_graph import lattice
from tests.planning.test_search import solve


@pytest.fixture
def search(tmp_path):
    graph = lattice(lengths=2, rates=2)
    curve = tuple(enumerate([0.0, *rise_and_fall(6, 12)]))
    solved, order = solve(graph, lambda route: len(route) + route[-1].child.startswith("us") / 2)
    outcomes = [replace(solved[edge], curve=curve, details={"stopping_reason": "peaked <here>"}) for edge in order]
    knee = {"curve": "exponential", "patience": 10.0}
    plan = PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, knee=knee, experiment={})
    journal = Journal(tmp_path / "journal.jsonl")
    journal.open(plan)

    def write(count):
        for outcome in outcomes[:count]:
            journal.append(outcome)
        return write_report(tmp_path).read_text(encoding="utf-8")

    return graph, solved, write


class Balanced(HTMLParser):
    """Fails on tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "path", "use", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in {"path", "use"}:
            assert self.open.pop() == tag


def test_report_of_a_finished_search(search):
    graph, outcomes, write = search
    html = write(len(outcomes))
    Balanced().feed(html)
    assert html.count("<svg") == 1 + len(graph.edges)
    final = max(graph.finals.values(), key=lambda state: winning_value(graph, outcomes, state))
    for edge in path_to(final, winning_edges(graph, outcomes)):
        assert re.search(rf'<tr class="path"><td>{edge.child}</td>', html)
    assert "peaked &lt;here&gt;" in html
    assert "training stops 10 epochs after it" in html


def winning_value(graph, outcomes, state):
    return max(outcomes[Edge(parent, state)].value for parent in graph.parents(state))


def test_report_needs_nothing_beside_it(search):
    html = search[2](14)
    assert not re.search(r'(src|href)="(?!#)', html.replace("xlink:href", "href").replace('href="#', ""))
    assert "<script" not in html


def test_report_of_a_search_under_way(search):
    html = search[2](3)
    Balanced().feed(html)
    assert "The search has not finished: 3 of 14 edges are done." in html
    assert html.count("to come") == 11


def test_diverged_edges_are_shown_as_such(search, tmp_path):
    graph, outcomes, _ = search
    edge = graph.edges[0]
    Journal(tmp_path / "journal.jsonl").append(replace(outcomes[edge], value=None, curve=((1, None), (2, None))))
    assert "diverged" in write_report(tmp_path).read_text()


def test_folder_without_a_journal_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal of a search here"):
        write_report(tmp_path / "nowhere")
