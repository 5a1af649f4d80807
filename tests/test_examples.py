"""Every example runs."""

import re
import runpy
import sys

import pytest

from lightning_opplan import OptimizationPath
from tests.helpers.scripted import PROJECT

FIELDS = {  # and what of them makes a short form
    "image_resolution.py": {"epochs": 8},
    "text_length.py": {"epochs": 8},
    "tabular_batch.py": {"epochs": 8},
    "fine_tune_depth.py": {"longest": 2},
}


def test_all_examples_are_tested():
    assert {file.name for file in (PROJECT / "examples").glob("*.py")} == {
        "demo.py", "knee_stopping.py", "own_trainings.py", "plan_in_python.py", *FIELDS,
    }  # fmt: skip


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """Run an example as a script, in a folder of its own; returns what it prints."""

    def run(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(PROJECT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_knee_stopping(example):
    assert re.search(r"val/loss peaked at epoch \d+", example("knee_stopping.py"))


@pytest.mark.slow
def test_plan_in_python(example, tmp_path):
    out = example("plan_in_python.py")
    assert str(OptimizationPath.load(tmp_path / "runs" / "plan_in_python" / "path.yaml")) in out


def test_own_trainings(example):
    """A path of the graph that ends better than both of the states that a training can start with."""
    out = example("own_trainings.py")
    states = re.search(r"The path: (.*)", out)[1].split(" → ")
    assert states[-1].startswith("2-2 × ")
    assert 0.2 < float(re.search(r"Its loss: (.*)", out)[1]) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_other_fields(name, tmp_path, capsys):
    """Planned and plain networks stand side by side, and their full output in the documentation."""
    runpy.run_path(str(PROJECT / "examples" / name), run_name="example")["main"](str(tmp_path / "run"), **FIELDS[name])
    out = capsys.readouterr().out
    lines = re.findall(r"^(planned|plain cosine, same epochs): test/accuracy (0\.\d+) \(each", out, re.MULTILINE)
    assert [arm for arm, _ in lines] == ["planned", "plain cosine, same epochs"]
    full = (PROJECT / "docs" / "examples.md").read_text(encoding="utf-8").partition(f"`python examples/{name}`")[2]
    words = [re.sub(r"[\d.]+", "#", line.partition(":")[0]) for line in out.splitlines() if ": " in line]
    shown = [re.sub(r"[\d.]+", "#", line.partition(":")[0]) for line in full.splitlines()]
    assert {word for word in words if word.startswith(("plan", "size", "length", "batches"))} <= set(shown)


@pytest.mark.slow
def test_demo(example, tmp_path):
    small = ["--data.init_args.num_train", 4, "--data.init_args.num_test", 1, "--plan.budget.epochs", 20]
    words = ["demo.py", "--dirpath", tmp_path / "demo", *small]
    out = example(*words)
    for expected in (
        "$ opplan plan",
        "$ opplan deliver",
        "$ opplan control",
        "$ opplan test",
        "Promised at its end:",
        "control (linear)",
        "Report:",
    ):
        assert expected in out
    verdict = re.search("(Planning is ahead|The control is ahead|are level).*", out)[0]
    assert verdict in example(*words), "a second time, nothing is trained, and the same comes out"


@pytest.mark.parametrize("script", sorted(file.name for file in (PROJECT / "benchmarks").glob("*.py")))
def test_benchmarks_fit_the_package(script, monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    assert "main" in runpy.run_path(str(PROJECT / "benchmarks" / script), run_name="benchmark")
