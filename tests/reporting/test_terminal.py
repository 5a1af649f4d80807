import io
import itertools
import re
from dataclasses import replace

import pytest
from rich.console import Console

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.graph import Edge, TransitionGraph
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting import FollowDisplay, SearchDisplay, edge_table, path_table
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.wording import duration
from tests.helpers.searches import lattice, outcome, solve


def text(renderable, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def recording(terminal, width=100, height=30):
    return Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=terminal)


@pytest.fixture
def finished():
    graph = lattice(lengths=2, rates=2)
    return solve(graph, lambda route: len(route) + route[-1].child.startswith("us") / 2)[0]


def test_table_marks_path_and_best_parents(finished):
    lines = text(edge_table(finished)).splitlines()
    assert "14 of 14 edges done, 70 epochs, 0 s" in lines[0]
    assert sum("★ path" in line for line in lines) == len([1 for line in lines if "★" in line]) >= 3
    assert all("us/" in line or "us/" in previous for previous, line in itertools.pairwise(lines) if "★" in line)
    assert sum(line.rstrip().endswith("best") for line in lines) >= 3


def test_table_shows_what_runs_and_what_is_to_come():
    graph = lattice(lengths=2, rates=1)
    diverged = outcome(("start", "cs/1-1"), None, 1)
    waiting = outcome(("start", "us/1-1"), 0.25, 2, is_paused=True)
    running = {Edge("start", "cs/2-1"): ("0.5000", "4?", "7", "12 s", "running")}
    lines = text(edge_table(Search(graph, outcomes=[diverged, waiting]), running=running))
    assert "1 of 6 edges done, 7 epochs, 0 s; 1 running; 1 paused" in lines
    assert "diverged" in lines
    assert re.search(r"us/1-1 +start +0.2500 +2 +4 +0 s +paused", lines)
    assert re.search(r"cs/2-1 +start +0.5000 +4\? +7 +12 s +running", lines)


def test_table_fits_the_terminal(finished):
    lines = text(edge_table(finished, max_rows=5)).splitlines()
    assert sum("start" in line or "/1-" in line or "/2-" in line for line in lines) == 5
    assert any("9 more edges" in line for line in lines)


@pytest.mark.parametrize("rows", [4, 6, 10])
@pytest.mark.parametrize("places", [(0, 3), (2, 9), (0, 13), (12, 13)], ids=str)
def test_table_shows_all_running_edges_however_far_apart(places, rows):
    graph = lattice(lengths=2, rates=2)
    search = Search(graph, outcomes=[outcome(edge, 0.5, 1) for edge in graph.edges[:2]])
    cells = ("0.5000", "4?", "7", "12 s", "running")
    running = {graph.edges[place]: cells for place in places}
    lines = text(edge_table(search, running=running, max_rows=rows)).splitlines()
    assert sum(line.rstrip().endswith("running") and "12 s" in line for line in lines) == 2


def test_table_of_a_beam_has_a_row_for_each_way():
    graph = lattice(lengths=2, rates=2, branches=())
    lines = text(edge_table(Search(graph, beam=2)))
    assert "0 of 10 edges done" in lines  # two ways into 2-1 and into 1-2, hence three edges more
    assert "2-1#2" in lines
    assert "1-1#2" not in lines


def test_sentences_are_printed_once_and_progress_from_elsewhere_is_shown():
    graph = lattice(lengths=2, rates=1)
    console = recording(terminal=False)
    display = SearchDisplay(Search(graph), console=console)
    with display:
        display.say("Edges run by ray, up to 4 at a time.")
        display.start(graph.edges[0])
        for edge in graph.edges[:2]:  # the second one has not started and is left out
            display.progress(edge, EdgeProgress(edge=edge, epoch=3, value=0.25, knee=2))
        assert "0.2500" in text(display._table())
    assert console.export_text().count("Edges run by ray") == 1


def test_path_table_names_settings(finished):
    path = finished.path(monitor="val/acc")
    lines = text(path_table(path))
    assert f"The path: {path.total_epochs:g} epochs" in lines
    assert "sampling us, clip_length 32, learning_rate 0.004" in lines


def test_without_a_terminal_each_edge_is_a_line(finished):
    console = recording(terminal=False)
    first, second = list(finished.outcomes.values())[:2]
    search = Search(finished.graph, outcomes=[first])
    with SearchDisplay(search, console=console) as display:
        for each in (replace(second, is_paused=True), second):
            display.start(second.edge)
            display.epoch(second.edge, (1, 0.5, None))
            search.tell(each)
            display.end(each)
    assert console.export_text().splitlines() == [
        "1 of 14 edges have finished before.",
        f"[1/14] {second.edge}: paused, {second.value:.4f} at epoch 3 of 5 (0 s)",
        f"[2/14] {second.edge}: {second.value:.4f} at epoch 3 of 5 (0 s)",
    ]


def test_in_a_terminal_the_table_is_live(finished):
    console = recording(terminal=True)
    with SearchDisplay(Search(finished.graph), console=console) as display:
        display.start(finished.edges[0])
        display.epoch(finished.edges[0], EdgeProgress(edge=finished.edges[0], epoch=7, value=0.1234, knee=5))
    output = console.export_text()
    assert "0.1234" in output
    assert "5?" in output


def test_disabled_display_is_silent(finished):
    console = recording(terminal=True)
    with SearchDisplay(finished, enabled=False, console=console) as display:
        display.end(finished.outcomes[finished.edges[0]])
        display.finish(finished.path())
    assert console.export_text() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_following_shows_states_and_epochs(terminal):
    steps = tuple(PathStep(state=state, epochs=epochs) for state, epochs in (("a", 2), ("b", 3)))
    console = recording(terminal)
    with FollowDisplay(OptimizationPath(steps=steps), console=console) as display:
        for step in steps:
            display.start(step)
            display.epoch(1)
    output = console.export_text()
    assert "b" in output
    assert ("of 5 epochs" if terminal else "b: 3 epochs") in output


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3599, "1 h 00 min"),
        (3 * 3600, "3 h 00 min"),
        (49 * 3600, "2 d 1 h"),
    ],
)
def test_durations_are_short(seconds, written):
    assert duration(seconds) == written


def test_names_that_look_like_markup_are_names():
    graph = TransitionGraph({"lr [low]": {}, "lr[/2]": {}}, [("start", "lr [low]"), ("lr [low]", "lr[/2]")])
    shown = text(edge_table(Search(graph)))
    assert "lr [low]" in shown
    assert "lr[/2]" in shown
    path = OptimizationPath(steps=(PathStep(state="lr[/2]", epochs=1, setting={}),))
    assert "lr[/2]" in text(path_table(path))


def test_large_amounts_are_written_out():
    assert (hours_of(4057), hours_of(99.96), hours_of(99.4)) == ("4,057 h", "100 h", "99.4 h")
    assert (in_thousands(999_700), in_thousands(999.4)) == ("1 M", "999")
