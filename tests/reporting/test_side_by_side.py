import pytest

from lightning_opplan.cli import main
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.reporting import found_paths, paths_table, write_figures, write_paths
from tests.helpers.searches import lattice, solve
from tests.reporting.test_terminal import text

SIGNATURES = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}


@pytest.fixture
def searches(tmp_path):
    """Two searches whose best paths end in different branches."""
    folders = []
    for name, favourite in (("a", "us"), ("b", "cs")):
        graph = lattice(lengths=2, rates=2)

        def value(route, favourite=favourite):
            return len(route) + route[-1].child.startswith(favourite) / 2

        solved, order = solve(graph, value)
        journal = Journal.of(tmp_path / "runs" / name)
        journal.open(PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, experiment={}))
        for edge in order:
            journal.append(solved.outcomes[edge])
        folders.append(tmp_path / "runs" / name)
    return folders


def test_paths_stand_side_by_side(tmp_path, searches):
    found = found_paths(searches)
    assert [each.name for each in found] == ["a", "b"]
    assert [each.path.steps[-1].state for each in found] == ["us/2-2", "cs/2-2"]
    shown = text(paths_table(found), width=200)
    assert "us/2-2 ×" in shown
    page = write_paths(found, tmp_path / "paths.html").read_text()
    assert page.count("<svg") == 1
    assert 'href="runs/b/report.html"' in page
    assert write_paths(found, tmp_path / "paths.pdf").read_bytes().startswith(SIGNATURES["pdf"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_every_figure_can_be_had_as_a_file(tmp_path, searches, kind):
    files = write_figures(searches[0], tmp_path / "figures", kind)
    names = {file.name for file in files}
    assert {f"graph.{kind}", f"procedure.{kind}", f"path.{kind}"} <= names
    assert len(names) == 3 + len(Journal.of(searches[0]).read()[1].outcomes)
    assert all(file.read_bytes().startswith(SIGNATURES[kind]) for file in files)


@pytest.mark.slow
def test_the_procedure_has_four_panels(tmp_path, searches):
    write_figures(searches[0], tmp_path)
    drawn = (tmp_path / "procedure.svg").read_text()
    for title in ("(a) the transition graph", "(b) every edge", "(c) the best path", "(d) the path and its epochs"):
        assert title in drawn


@pytest.mark.slow
def test_report_of_several_searches_from_the_command_line(tmp_path, searches, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["opplan"])
    monkeypatch.chdir(tmp_path)
    main(["report", *map(str, searches), "--figures", "f"])
    out = capsys.readouterr().out
    assert "Paths:   paths.html" in out
    assert len(list((tmp_path / "f").glob("*/graph.svg"))) == 2
    with pytest.raises(SystemExit):
        main(["report", *map(str, searches), "--out", "paths.bmp"])
    assert "`format` must be one of 'svg', 'png', 'pdf'" in capsys.readouterr().err
