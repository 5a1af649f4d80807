import csv
import json
import statistics

import pytest

from lightning_opplan.cli import main
from lightning_opplan.cli.result_tables import STRATEGIES, ResultTable, written
from tests.helpers.scripted import PROJECT


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["opplan"])
    monkeypatch.chdir(tmp_path)


def table(folder, **changes):
    given = {"strategies": ["a", "b"], "seeds": [0, 1], "dirpath": folder, "words": ["--x", "1"], "main": None}
    return ResultTable("networks", ["n1", "n2"], **{**given, **changes})


@pytest.fixture
def counted(monkeypatch):
    """Two strategies whose value is known, and what was asked of them."""
    asked = []

    def measure(offset, _main, words, _folder):
        asked.append(words)
        seed, entry = words[words.index("--seed_everything") + 1], words[words.index("--model.init_args.network") + 1]
        return {"test/top1": offset + int(seed) / 10 + int(entry[1]) / 100}, (10.0, 0.5)

    values = {"a": lambda *given: measure(0.1, *given), "b": lambda *given: measure(0.3, *given)}
    monkeypatch.setattr("lightning_opplan.cli.result_tables.STRATEGIES", values)
    return asked


def test_a_table_has_means_and_errors_over_seeds_and_goes_on(tmp_path, counted):
    said = []
    first = table(tmp_path / "t")
    first.fill(said.append)
    assert said[0] == "[1/8] n1, seed 0: a"
    assert len(counted) == 8
    rows = dict(first.rows("test/top1"))
    assert rows["n1"] == [pytest.approx([0.11, 0.21]), pytest.approx([0.31, 0.41])]
    assert rows["mean"] == [pytest.approx([0.115, 0.215]), pytest.approx([0.315, 0.415])]
    assert written(rows["n1"][0]) == f"0.1600 ± {statistics.stdev([0.11, 0.21]) / 2**0.5:.4f}"
    assert {hours for *_, hours in first.costs()} == {0.5}
    first.write("test/top1")
    with open(tmp_path / "t" / "table.csv") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 8
    assert float(lines[0]["test/top1"]) == pytest.approx(0.11)
    (tmp_path / "t" / "n2" / "seed-1" / "b.json").unlink()  # as if it had been killed there
    again = table(tmp_path / "t")
    again.fill(said.append)
    assert len(counted) == 9
    assert again.cells == first.cells


def test_one_seed_has_its_error_over_the_rows(tmp_path, counted):
    made = table(tmp_path / "t", seeds=[0])
    made.fill(lambda _: None)
    rows = dict(made.rows("test/top1"))
    assert rows["n2"] == [pytest.approx([0.12]), pytest.approx([0.32])]
    assert rows["mean"][0] == pytest.approx([0.11, 0.12])


def test_wrong_use_is_named(tmp_path, counted):
    with pytest.raises(ValueError, match="`strategies` must be one of 'a', 'b', got 'c'"):
        table(tmp_path, strategies=["c"])
    with pytest.raises(ValueError, match="`over` must name the networks of the table"):
        ResultTable("networks", [], strategies=["a"], seeds=[0], dirpath=tmp_path, words=[], main=None)
    made = table(tmp_path / "t")
    made.fill(lambda _: None)
    with pytest.raises(ValueError, match="got 'test/top2', which that of n1 by a does not. Did you mean"):
        made.rows("test/top2")
    with pytest.raises(ValueError, match="`dirpath` must be a new folder for other arguments"):
        table(tmp_path / "t", words=["--x", "2"]).fill(lambda _: None)


@pytest.mark.slow
def test_every_strategy_from_the_command_line(tmp_path, capsys):
    """A network on some of the demo's clips, an epoch each."""
    options = {"depths": [1, 1, 1, 1], "width": 8, "stem_size": 5, "min_size": 8}
    clips = [{"data.clip_length": frames} for frames in (16, 32)]
    rates = [{"model.learning_rate": rate} for rate in (0.01, 0.001)]
    axes = [{"name": "clip", "settings": clips}, {"name": "rate", "settings": rates}]
    graph = {"branches": {"uniform": {"data.sampling": "uniform"}}, "axes": axes}
    names = list(STRATEGIES)
    words = [
        "table", "networks", "--over", "[g_p3d_resnet50]", "--strategies", json.dumps(names),
        "--dirpath", "t", "--", "--config", str(PROJECT / "configs" / "demo_paper.yaml"),
        "--data.init_args.root", "videos", "--data.init_args.num_train", "4", "--data.init_args.num_test", "1",
        "--model.init_args.network_options", json.dumps(options), "--trainer.max_epochs", "1",
        "--plan.graph", json.dumps(graph), "--plan.grid.epochs", "[4]",
    ]  # fmt: skip
    main(words)
    out = capsys.readouterr().out
    assert "[8/8] g_p3d_resnet50, seed 0: multigrid" in out
    assert "test/top1; one seed" in out
    page = (tmp_path / "t" / "table.html").read_text()
    assert page.count('<td class="n">0.') >= len(names)
    assert "g_p3d_resnet50/seed-0/report.html" in page
    main(words)
    assert "[1/8]" not in capsys.readouterr().out


def test_entries_whose_folders_would_be_one_are_refused(tmp_path, counted):
    with pytest.raises(ValueError, match="must name datasets of different names, got 'plan' twice"):
        ResultTable(
            "datasets",
            ["a/plan.yaml", "b/plan.yaml"],
            strategies=["a"],
            seeds=[0],
            dirpath=tmp_path,
            words=[],
            main=None,
        )
