import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lightning_opplan.planning.curves import fit_curve
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.progress import EdgeProgress, SearchStatus
from lightning_opplan.reporting import write_report
from lightning_opplan.reporting.fits import Fits
from lightning_opplan.reporting.page_data import embedded
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
        if tag not in {"meta", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def data_of(html):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


def statuses(html):
    return Counter(entry["s"] for entry in data_of(html)["edges"])


def test_report_of_a_finished_search(search):
    solved, write = search
    html = write(len(solved.outcomes))
    Balanced().feed(html)
    data = data_of(html)
    assert data["state"] == "finished"
    assert "reload" not in data
    assert [(entry["p"], entry["c"]) for entry in data["edges"]] == list(solved.edges)
    for edge in solved.way("us/2-2"):
        assert re.search(rf'<tr class="path"><td>{edge.child}</td>', html)
        (entry,) = (entry for entry in data["edges"] if (entry["p"], entry["c"]) == edge)
        assert entry["s"] == "path"
    assert all(entry["w"] == "peaked <here>" for entry in data["edges"])
    assert "<here>" not in html
    assert "training stops 10 epochs after it" in html


def test_fit_in_the_page_is_that_of_the_search(search):
    solved, write = search
    entry = data_of(write(14))["edges"][3]
    outcome = solved.outcomes[solved.edges[3]]
    curve = tuple(enumerate([0.0, *rise_and_fall(6, 12)]))
    epochs, values = zip(*curve, strict=True)
    fit = fit_curve(values, mode="max", epochs=epochs)
    assert entry["f"] == pytest.approx(fit.parameters, rel=1e-5)
    assert entry["r"] == pytest.approx(fit.r_squared, rel=1e-5)
    assert entry["y"] == pytest.approx(values, rel=1e-5)
    assert (entry["x"], entry["k"], entry["v"]) == (0, outcome.knee_epoch, outcome.value)


def test_report_needs_nothing_beside_it_and_runs_no_script_but_its_own(search):
    html = search[1](14)
    assert not re.search(r"""(src|href)=["'](?!#)""", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_report_of_a_search_under_way(search):
    html = search[1](3)
    Balanced().feed(html)
    assert "The search has not finished: 3 of 14 edges are done." in html
    assert statuses(html)["todo"] == 11
    assert "spent" in html


def test_diverged_edges_are_shown_as_such(search, tmp_path):
    first = search[0].outcomes[search[0].edges[0]]
    Journal.of(tmp_path).append(replace(first, value=None, curve=((1, None), (2, None))))
    html = write_report(tmp_path).read_text()
    assert statuses(html)["diverged"] == 1
    assert data_of(html)["edges"][0]["y"] == [None, None]


def test_paused_edges_are_shown_with_their_curves(search, tmp_path):
    first, second = (search[0].outcomes[edge] for edge in search[0].edges[:2])
    journal = Journal.of(tmp_path)
    journal.append(first)
    journal.append(replace(second, is_paused=True, curve=((1, 0.2), (2, 0.3))))
    html = write_report(tmp_path).read_text()
    Balanced().feed(html)
    assert "<b>1</b><span>edges paused</span>" in html
    assert statuses(html)["paused"] == 1
    assert data_of(html)["edges"][1]["y"] == [0.2, 0.3]


def test_running_edges_are_shown_as_far_as_they_have_come(search, tmp_path):
    search[1](3)
    plan, known = Journal.of(tmp_path).read()
    edge, finished = known.ask().edge, next(iter(known.outcomes))
    told = EdgeProgress(edge=edge, plan=plan.fingerprint, epoch=2, value=0.3, knee=2, curve=((1, 0.2), (2, 0.3)))
    told.write(made(tmp_path / "edges" / "a"))
    replace(told, edge=finished).write(made(tmp_path / "edges" / "b"))
    replace(told, edge=known.ask([edge]).edge, plan="another").write(made(tmp_path / "edges" / "c"))
    (made(tmp_path / "edges" / "d") / "progress.json").write_text('{"edge": ["start"')
    html = write_report(tmp_path).read_text()
    assert statuses(html)["running"] == 1
    (entry,) = (entry for entry in data_of(html)["edges"] if entry["s"] == "running")
    assert (entry["p"], entry["c"], entry["n"], entry["l"], entry["y"]) == (*edge, 2, 0.3, [0.2, 0.3])
    SearchStatus(state="ended").write(tmp_path)
    assert statuses(write_report(tmp_path).read_text())["interrupted"] == 1


def made(folder):
    folder.mkdir(parents=True)
    return folder


def test_what_json_has_not_and_what_ends_a_script_is_escaped():
    content = {"</script><!--": [float("nan"), float("inf"), 1 / 3, 5.0, "a & b <i>", True, None]}
    text = embedded(content)
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"</script><!--": [None, None, 0.33333333, 5, "a & b <i>", True, None]}


def test_folder_without_a_journal_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journal of a search here"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["control", "deliver"])
def test_what_nobody_has_measured_is_not_shown(tmp_path, kind):
    graph = TransitionGraph({"a": {}, "b": {}}, [(START, "a"), ("a", "b")])
    journal = Journal.of(tmp_path)
    journal.open(PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, experiment={}, kind=kind))
    for edge in graph.edges:
        journal.append(EdgeOutcome(edge=edge, value=0.0, knee_epoch=3, epochs_run=3, weights="w", seconds=1.0))
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "0.0000" not in html
    assert "to be expected on new data" not in html
    assert "Epochs were given beforehand" in html
    assert not [entry for entry in data_of(html)["edges"] if "v" in entry or "e" in entry]


def test_the_curve_that_is_drawn_is_the_one_that_the_rule_has_fitted(tmp_path):
    values = [0.5, 0.56, 0.6, 0.63, 0.65, 0.1, 0.67, 0.68, 0.69, 0.69, 0.7, 0.7, 0.7, 0.69]
    points = tuple(enumerate(values, start=1))
    decided = KneeRule(patience=2).decide(points, "max").fit
    assert Fits().of(Edge(START, "a"), points, "exponential", "max").parameters == decided.parameters
