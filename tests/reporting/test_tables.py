import csv
import json
import pickle
import sys
from dataclasses import replace

import optuna
import pandas
import pytest

from lightning_opplan import SearchResult, plot_comparison, plot_curves, plot_graph, plot_paths, write_tables
from lightning_opplan.cli import main
from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.reporting import write_optuna
from tests.helpers.scripted import rise_and_fall
from tests.helpers.searches import solve

CURVE = tuple(enumerate([0.0, *rise_and_fall(6, 16)]))
GRAPH = TransitionGraph(
    {"warm": {"lr": 0.1, "crops": [1, 2]}, "cool": {"lr": 0.01, "crops": [1, 2]}, "cold": {"lr": "auto"}},
    [("start", "warm"), ("warm", "cool"), ("start", "cool"), ("cool", "cold")],
)


@pytest.fixture
def folder(tmp_path):
    solved, order = solve(
        GRAPH, lambda route: None if len(route) == 1 and route[0].child == "cool" else len(route) / 9
    )
    journal = Journal.of(tmp_path / "run")
    journal.open(PlanRecord(graph=GRAPH, monitor="val/acc", mode="max", seed=3, experiment={}))
    for edge in order:
        journal.append(replace(solved.outcomes[edge], curve=CURVE, seconds=36.0, standard_error=0.01))
    return tmp_path / "run"


def test_result_is_loaded_with_rows_frames_and_figures(folder):
    result = pickle.loads(pickle.dumps(SearchResult.load(folder)))  # as it goes to other ranks
    assert {row.child for row in result.states() for row in result.edges()} == {"warm", "cool", "cold"}
    frame = result.to_pandas()
    assert list(frame["child"]) == [row.child for row in result.edges()]
    assert frame["setting.crops"].iloc[0] == "[1, 2]"
    assert frame["device_hours"].sum() == pytest.approx(4 * 0.01)
    curves = result.to_pandas("curves")
    assert len(curves) == 4 * len(CURVE)
    assert curves.groupby(["parent", "child"])["val/acc"].max().iloc[0] == max(value for _, value in CURVE)
    with pytest.raises(ValueError, match="`table` must be one of 'edges', 'states', 'curves', got 'x'"):
        result.to_pandas("x")
    for figure in (result.plot_graph(), plot_graph(folder), result.plot_paths(), plot_paths({"mine": folder})):
        assert figure.axes
    assert [axes.get_title() for axes in result.plot_curves().axes] == ["start → warm", "warm → cool", "cool → cold"]
    assert len(plot_curves(result, edges=[("start", "cool")]).axes) == 1
    with pytest.raises(ValueError, match="`edges` must have been trained, got 'start → cold'"):
        result.plot_curves(edges=[("start", "cold")])
    with pytest.raises(ValueError, match="`source` must have something to compare with"):
        result.plot_comparison()


def test_comparison_has_what_was_tested_with_its_members(folder):
    (folder / "test.json").write_text(json.dumps({"ensemble": {"test/acc": 0.5}, "members": {"a": {"test/acc": 0.5}}}))
    (folder / "deliver").mkdir()
    (folder / "deliver" / "journal.jsonl").write_bytes((folder / "journal.jsonl").read_bytes())
    members = {"a": {"test/acc": 0.55}, "b": {"test/acc": 0.65}}
    results = {"ensemble": {"test/acc": 0.625}, "members": members}
    (folder / "deliver" / "test.json").write_text(json.dumps(results))
    (axes,) = plot_comparison(folder).axes
    drawn = [list(map(float, line.get_xdata())) for line in axes.lines]
    assert [0.625] in drawn
    assert [0.55, 0.65] in drawn
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == ["searched", "delivered"]


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_tables_are_read_back_by_other_programs_as_they_were(folder, tmp_path, kind):
    files = write_tables(folder, tmp_path / "out", kind)
    assert [file.name for file in files] == [f"edges.{kind}", f"states.{kind}", f"curves.{kind}"]
    read = {"csv": pandas.read_csv, "json": pandas.read_json, "parquet": pandas.read_parquet}[kind]
    edges = read(files[0])
    known = SearchResult.load(folder).edges()
    assert list(edges["child"]) == [row.child for row in known]
    assert list(edges["status"]) == [row.status for row in known]
    values = [row.value for row in known]
    assert [None if pandas.isna(value) else value for value in edges["value"]] == pytest.approx(values)
    assert len(read(files[2])) == 4 * len(CURVE)


def test_export_from_the_command_line(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    main(["export", str(folder)])
    with (folder / "export" / "edges.csv").open() as stream:
        assert [row["child"] for row in csv.DictReader(stream)] == [edge.child for edge in GRAPH.edges]
    main(["export", str(folder), "--format", "optuna", "--out", f"sqlite:///{tmp_path / 'study.db'}"])
    assert "run, 4 trials" in capsys.readouterr().out
    assert len(optuna.load_study(study_name="run", storage=f"sqlite:///{tmp_path / 'study.db'}").trials) == 4


def test_optuna_has_every_edge_as_a_trial_with_its_curve(folder, tmp_path):
    write_optuna(folder, tmp_path / "study.log")
    write_optuna(folder, tmp_path / "study.log")  # made anew, not added to
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log")))
    study = optuna.load_study(study_name="run", storage=storage)
    result = SearchResult.load(folder)
    assert study.direction.name == "MAXIMIZE"
    assert study.best_value == result.path.value
    assert len(study.trials) == 4
    for trial in study.trials:
        outcome = result.outcomes[trial.user_attrs["parent"], trial.user_attrs["child"]]
        assert trial.state.name == ("FAIL" if outcome.value is None else "COMPLETE")
        assert trial.value == outcome.value
        assert trial.intermediate_values == dict(CURVE)
        assert trial.params["lr"] == GRAPH.settings[outcome.edge.child]["lr"]
        assert trial.duration.total_seconds() == pytest.approx(36)


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        ("pandas", lambda folder: SearchResult.load(folder).to_pandas(), "pandas"),
        ("pyarrow", lambda folder: write_tables(folder, folder, "parquet"), "pandas"),
        ("optuna", lambda folder: write_optuna(folder, folder / "x.log"), "optuna"),
    ],
    ids=["pandas", "parquet", "optuna"],
)
def test_what_is_not_installed_is_named(folder, monkeypatch, module, call, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'lightning-opplan\[{extra}\]'"):
        call(folder)


def test_help_begins_with_an_example_and_our_own_options(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    shown = {}
    for words in (["--help"], ["plan", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        shown[words[0]] = capsys.readouterr().out
    overview, plan = shown["--help"], shown["plan"]
    assert overview.index("opplan plan   --config mine.yaml") < overview.index("options:")
    assert overview.index("    plan   ") < overview.index("    export ") < overview.index("    fit ")
    lines = plan.splitlines()
    place = {
        word: next(n for n, line in enumerate(lines) if word in line)
        for word in ("opplan plan --config", "--plan.dirpath DIRPATH", "--plan.preset", "--trainer.accelerator")
    }
    assert place["opplan plan --config"] < 6
    assert place["--plan.dirpath DIRPATH"] < 45
    assert place["--plan.dirpath DIRPATH"] < place["--plan.preset"] < place["--trainer.accelerator"]


def test_a_single_test_is_nothing_to_compare_with_yet(folder):
    (folder / "test.json").write_text(json.dumps({"ensemble": {"test/acc": 0.5}, "members": {"a": {"test/acc": 0.5}}}))
    (folder / "grid").mkdir()
    (folder / "grid" / "journal.jsonl").write_bytes((folder / "journal.jsonl").read_bytes())
    (axes,) = plot_comparison(folder).axes
    assert axes.get_yticklabels()[0].get_text().startswith("the path")


def test_a_database_gets_a_further_study(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    names = [write_optuna(folder, url).study_name for _ in range(3)]
    assert names == [folder.name, f"{folder.name}-2", f"{folder.name}-3"]


def test_curves_have_names_before_there_is_one(tmp_path):
    graph = TransitionGraph({"a": {}}, [("start", "a")])
    Journal.of(tmp_path).open(PlanRecord(graph=graph, monitor="val/acc", mode="max", seed=0, experiment={}))
    write_tables(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "curves.csv").read_text() == "parent,child,epoch,val/acc\n"
