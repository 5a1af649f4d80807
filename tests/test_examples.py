"""Every example runs, and every command and piece of code of the README does what it says."""

import re
import runpy
import sys

import pytest
import torch
import yaml
from torchvision.models import get_model as image_model

from lightning_opplan import OptimizationPath
from lightning_opplan.cli import OpplanCLI, main
from lightning_opplan.models import registry
from tests.helpers.scripted import PROJECT

FIELDS = {  # and what of them makes a short form
    "image_resolution.py": {"epochs": 8},
    "text_length.py": {"epochs": 8},
    "tabular_batch.py": {"epochs": 8},
    "fine_tune_depth.py": {"longest": 2},
}
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


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


@pytest.mark.slow
def test_python_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(PROJECT / "examples" / "plan_in_python.py"))
    callback, plan, network = blocks("python")
    exec(compile(callback, "README", "exec"), {"Trainer": lambda callbacks: callbacks})
    exec(compile(plan, "README", "exec"), names)
    assert (tmp_path / "runs" / "plan" / "report.html").exists()
    monkeypatch.setattr(registry, "download_image_weights", lambda name: image_model(name).state_dict())
    names = {"clips": torch.randn(1, 3, 16, 64, 64)}
    exec(compile(network, "README", "exec"), names)
    assert names["scores"].shape == (1, 101)
    assert len(names["heads"]) == 2


def test_yaml_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    callback, plan, budget, videos, network = map(yaml.safe_load, blocks("yaml"))
    data = {"data": {"class_path": "tests.helpers.toy.Quadrants"}}
    mine = {"model": {"class_path": "tests.helpers.toy.Classifier"}, **data, **callback, **plan}
    for subcommand, content, expected in [
        ("plan", mine, "lightning_opplan.KneeStopping"),
        ("deliver", {**mine, **budget}, "epochs: 600"),
        ("fit", {**network, **data}, "activation_checkpointing: true"),
        ("fit", {**network, **videos}, "dataset: ucf101"),
    ]:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(SystemExit) as caught:
            main([subcommand, "--config", str(tmp_path / "mine.yaml"), "--print_config"])
        assert caught.value.code == 0
        assert expected in capsys.readouterr().out


def test_commands_of_the_readme_exist():
    commands = re.findall(r"^\$ opplan (\w+)(.*)$", README, flags=re.MULTILINE)
    assert {command for command, _ in commands} >= {"plan", "follow", "test", "report"}
    assert {command for command, _ in commands} <= set(OpplanCLI.subcommands())
    for file in re.findall(r"(?:configs|examples|benchmarks|docs)/[\w./]+", README):
        assert (PROJECT / file).is_file(), file
    for target in re.findall(r"(?:\$ |`)make (\w+)", README):
        assert f"\n{target}:" in (PROJECT / "Makefile").read_text(), target
