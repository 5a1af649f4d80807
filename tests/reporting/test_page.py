"""The report in a browser."""

import io
import threading
import time
from dataclasses import replace

import pytest
from PIL import Image

from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.progress import EdgeProgress, SearchStatus
from lightning_opplan.reporting import write_report
from lightning_opplan.reporting.watch import ReportServer
from tests.helpers.browser import PROGRAM, Browser
from tests.helpers.scripted import rise_and_fall
from tests.helpers.searches import lattice, solve

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium"),
]

CURVE = tuple(enumerate([0.0, *rise_and_fall(6, 16)]))
EVIL = '</script><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def _without_errors(browser):
    browser.errors.clear()
    browser.look()
    yield
    assert not browser.errors


def written(folder, graph, count=None):
    """A search of which some edges have finished."""
    solved, order = solve(graph, lambda route: len(route) + route[-1].child.startswith("us") / 2)
    journal = Journal.of(folder)
    plan = PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, experiment={})
    journal.open(plan)
    knee = KneeRule().decide(CURVE).knee_epoch
    for edge in order[:count]:
        further = {"curve": CURVE, "knee_epoch": knee, "stopping_reason": f"peaked {EVIL}", "standard_error": 0.01}
        journal.append(replace(solved.outcomes[edge], seconds=60.0, **further))
    return plan, order, solved


def started(folder, plan, edge, epochs):
    """That edge has come so far."""
    place = folder / "edges" / edge.child.replace("/", ".")
    place.mkdir(parents=True, exist_ok=True)
    curve = CURVE[: epochs + 1]
    EdgeProgress(
        edge=edge, plan=plan.fingerprint, epoch=epochs, value=curve[-1][1], knee=epochs, curve=curve,
        seconds=5.0 * epochs, updated=time.time(),
    ).write(place)  # fmt: skip
    SearchStatus(state="running", num_workers=1, updated=time.time()).write(folder)


def choose(browser, place, value):
    """Type into the filter, or choose from it."""
    browser.run(f"document.getElementById('{place}').value = {value!r}")
    browser.run(f"document.getElementById('{place}').dispatchEvent(new Event('input', {{bubbles: true}}))")


def count(browser, selector):
    return browser.run(f"document.querySelectorAll({selector!r}).length")


def text(browser, selector):
    return browser.run(f"document.querySelector({selector!r}).textContent")


def test_finished_search_is_drawn_filtered_and_enlarged(browser, tmp_path):
    *_, solved = written(tmp_path, lattice(lengths=2, rates=2))
    browser.open(write_report(tmp_path).as_uri())
    assert text(browser, "#state") == "Finished"
    assert count(browser, "#curves .curve") == count(browser, "#rows tbody tr") == 14
    assert count(browser, "#graph-sheet .place") == 9
    assert count(browser, "#graph-sheet .arc:not(.touch)") == 14
    assert count(browser, "#graph-sheet .arc.path") == len(solved.way("us/2-2"))
    # of one branch, and then those into or out of one state
    choose(browser, "branch", "us")
    assert text(browser, "#count") == "7 of 14 edges"
    assert count(browser, "#curves .curve:not([hidden])") == count(browser, "#rows tbody tr") == 7
    choose(browser, "find", "us/2-2")
    assert text(browser, "#count") == f"{sum('us/2-2' in edge for edge in solved.edges)} of 14 edges"
    # sorted by value, the best first
    browser.run("document.querySelectorAll('#rows th button')[2].click()")
    values = browser.run("[...document.querySelectorAll('#rows tbody tr')].map(row => +row.cells[2].textContent)")
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    # enlarged by a click, read by the keyboard, closed by Escape
    browser.run("document.querySelector('#curves .curve:not([hidden]) .plot').click()")
    assert browser.run("document.getElementById('large').open")
    assert count(browser, "#large-values tbody tr") == len(CURVE)
    for key in ("ArrowRight", "ArrowRight"):
        browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert text(browser, "#large-read").startswith(f"Epoch 1: {CURVE[1][1]:.4f}, fitted ")
    fitted = float(text(browser, "#large-read").split()[-1])
    assert fitted == pytest.approx(CURVE[1][1], abs=0.002)
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    browser.wait("!document.getElementById('large').open")


def test_what_others_have_named_is_text_and_can_be_marked(browser, tmp_path):
    graph = TransitionGraph({EVIL: {"model.lr": EVIL}, "b": {"model.lr": 1}}, [("start", EVIL), (EVIL, "b")])
    written(tmp_path, graph)
    browser.open(write_report(tmp_path).as_uri())
    assert count(browser, "img") == 0
    assert browser.run("document.title").startswith("Optimization planning")
    assert text(browser, "#curves .curve h3") == f"start → {EVIL}"
    marked = browser.run(
        "getSelection().selectAllChildren(document.querySelector('#rows tbody td')); String(getSelection())"
    )
    assert marked == EVIL


def test_file_reloads_itself_as_long_as_the_search_runs(browser, tmp_path):
    plan, order, _ = written(tmp_path, lattice(lengths=2, rates=2), 4)
    started(tmp_path, plan, order[4], 3)
    browser.open(write_report(tmp_path, reload_seconds=0.3).as_uri())
    assert text(browser, "#state").startswith("Running, last heard")
    assert count(browser, "#graph-sheet .arc.running:not(.touch)") == 1
    assert "at epoch 3" in text(browser, "#now .curve p")
    browser.run("window.sameLoad = 1")
    choose(browser, "find", "us")
    started(tmp_path, plan, order[4], 8)
    write_report(tmp_path, reload_seconds=0.3)
    browser.wait("window.sameLoad === undefined")  # once nobody types
    browser.wait("document.querySelector('#now .curve p')?.textContent.includes('at epoch 8')")
    browser.wait("document.getElementById('find')?.value === 'us'")
    written(tmp_path / "done", lattice(lengths=2, rates=2))
    browser.open(write_report(tmp_path / "done", reload_seconds=0.3).as_uri())
    browser.run("window.sameLoad = 1")
    time.sleep(1)
    assert browser.run("window.sameLoad") == 1


def test_served_page_grows_with_the_search(browser, tmp_path):
    plan, order, _ = written(tmp_path, lattice(lengths=2, rates=2), 4)
    started(tmp_path, plan, order[4], 3)
    with ReportServer(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            browser.open(server.url)
            assert "4 of 14" in text(browser, "#summary")
            browser.run("window.sameLoad = 1")
            started(tmp_path, plan, order[4], 9)
            browser.wait("document.querySelector('#now .curve p').textContent.includes('at epoch 9')")
            place = next((tmp_path / "edges").iterdir())
            (place / "progress.json").unlink()
            written(tmp_path / "whole", plan.graph)
            (tmp_path / "journal.jsonl").write_bytes((tmp_path / "whole" / "journal.jsonl").read_bytes())
            browser.wait("document.getElementById('state').textContent === 'Finished'")
            assert "14 of 14" in text(browser, "#summary")
            assert count(browser, "#curves .curve") == 14
            assert browser.run("document.getElementById('now').hidden")
            assert browser.run("window.sameLoad") == 1  # it was never loaded again
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 400])
def test_page_fits_its_window_in_both_schemes(browser, tmp_path, width, scheme):
    plan, order, _ = written(tmp_path, lattice(lengths=3, rates=3), 9)
    started(tmp_path, plan, order[9], 5)
    browser.look(width, 900, scheme)
    browser.open(write_report(tmp_path).as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('#graph-sheet svg').getBoundingClientRect().width") > 250
    picture = Image.open(io.BytesIO(browser.picture())).convert("L")
    assert picture.size == (width, 900)
    corner = picture.getpixel((3, 3))
    assert corner > 230 if scheme == "light" else corner < 40
    assert len(picture.getcolors()) > 50
