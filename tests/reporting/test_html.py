import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.reporting import write_report
from tests.helpers.scripted import rise_and_fall
from tests.helpers.searches import lattice, solve


@pytest.fixture
def search(tmp_path):
    graph = lattice(lengths=2, rates=2)
    curve = tuple(enumerate([0.0, *rise_and_fall(6, 12)]))
    solved, order = solve(graph, lambda route: len(route) + route[-1].child.startswith("us") / 2)
    further = {"curve": curve, "stopping_reason": "peaked <here>"}
    outcomes = [replace(solved.outcomes[edge], **further) for edge in order]
    journal = Journal.of(tmp_path)
    journal.open(PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, experiment={}))

    def write(count):
        for outcome in outcomes[:count]:
            journal.append(outcome)
        return write_report(tmp_path).read_text(encoding="utf-8")

    return solved, write


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
    solved, write = search
    html = write(len(solved.outcomes))
    Balanced().feed(html)
    assert html.count("<svg") == 2 + len(solved.edges)  # the graph, whole and in panels
    for edge in solved.way("us/2-2"):
        assert re.search(rf'<tr class="path"><td>{edge.child}</td>', html)
    assert "peaked &lt;here&gt;" in html
    assert "training stops 10 epochs after it" in html


def test_report_needs_nothing_beside_it(search):
    html = search[1](14)
    assert not re.search(r'(src|href)="(?!#)', html.replace("xlink:href", "href").replace('href="#', ""))
    assert "<script" not in html


def test_report_of_a_search_under_way(search):
    html = search[1](3)
    Balanced().feed(html)
    assert "The search has not finished: 3 of 14 edges are done." in html
    assert html.count("to come") == 11


def test_diverged_edges_are_shown_as_such(search, tmp_path):
    first = search[0].outcomes[search[0].edges[0]]
    Journal.of(tmp_path).append(replace(first, value=None, curve=((1, None), (2, None))))
    assert "diverged" in write_report(tmp_path).read_text()


def test_paused_edges_are_shown_with_their_curves(search, tmp_path):
    first, second = (search[0].outcomes[edge] for edge in search[0].edges[:2])
    journal = Journal.of(tmp_path)
    journal.append(first)
    journal.append(replace(second, is_paused=True, curve=((1, 0.2), (2, 0.3))))
    html = write_report(tmp_path).read_text()
    Balanced().feed(html)
    assert "<b>1</b><span>edges paused</span>" in html
    assert html.count("<td>paused</td>") == 1
    assert html.count('<section class="curve') == 2


def test_folder_without_a_journal_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal of a search here"):
        write_report(tmp_path / "nowhere")
