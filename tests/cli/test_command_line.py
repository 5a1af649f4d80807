import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_opplan import OptimizationPath
from lightning_opplan.cli import OpplanCLI, main
from lightning_opplan.planning.journal import Journal
from tests.helpers import toy
from tests.helpers.config import CONFIG
from tests.helpers.scripted import PROJECT


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@pytest.fixture
def config(tmp_path):
    def write(**changes):
        content = yaml.safe_load(yaml.safe_dump(CONFIG))
        content["plan"]["dirpath"] = str(tmp_path / "run")
        for key, value in changes.items():
            *parents, name = key.split("__")
            node = content
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = value
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        return str(file)

    return write


SHORT = {"axes": [{"name": "rate", "settings": [{"model.lr": 0.1}, {"model.lr": 0.01}]}], "starts": ["1"]}
"""Two states, one after the other."""


@pytest.fixture(scope="session")
def _planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["opplan"])
        main(["plan", "--config", str(folder / "config.yaml"), "--plan.dirpath", str(folder / "run")])
    return folder / "run"


@pytest.fixture
def planned(_planned, tmp_path):
    """Folder of the plan that `config` describes, finished; a copy for this test alone."""
    return Path(shutil.copytree(_planned, tmp_path / "run"))


def fails(capsys, *words, status=1):
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == status
    return capsys.readouterr().err


@pytest.mark.slow
def test_plan_follow_and_report(tmp_path, config, capsys):
    file = config()
    cli = main(["plan", "--config", file])
    run = tmp_path / "run"
    path = OptimizationPath.load(run / "path.yaml")
    assert cli.result.path == path
    out = capsys.readouterr().out
    assert "[7/7] 1-2 → 2-2" in out
    assert "The path:" in out
    assert f"Report:  {run / 'report.html'}" in out

    (run / "report.html").unlink()
    main(["report", str(run)])
    assert 'id="data"' in (run / "report.html").read_text()

    main(["follow", "--config", file, "--path", str(run / "path.yaml")])
    assert torch.load(run / "follow" / "weights.ckpt", weights_only=True)["state_dict"]
    main(["validate", "--config", file, "--ckpt_path", str(run / "follow" / "weights.ckpt")])


def test_finished_plan_only_prints_its_result(planned, config, capsys):
    result = main(["plan", "--config", config()]).result
    assert result.path == OptimizationPath.load(planned / "path.yaml")
    out = capsys.readouterr().out
    assert "7 of 7 edges have finished before." in out
    assert "[1/7]" not in out


def test_state_reaches_model_data_and_checkpoint(planned):
    weights = torch.load(planned / "edges" / "004_2-1--1-2" / "weights.ckpt", weights_only=True)
    assert weights["hyper_parameters"]["lr"] == 0.01
    assert "edges" not in {entry.name for entry in Path.cwd().iterdir()}


@pytest.mark.slow
def test_overrides_on_the_command_line(tmp_path, config):
    words = ["--plan.dirpath", str(tmp_path / "other"), "--plan.knee.patience", "1"]
    main(["plan", "--config", config(plan__graph=SHORT), *words])
    assert '"patience": 1' in (tmp_path / "other" / "journal.jsonl").read_text().splitlines()[0]


def test_written_graph(config):
    graph = {
        "states": {"warm": {"model.lr": 0.1}, "cool": {"model.lr": 0.01}},
        "edges": [["start", "warm"], ["warm", "cool"]],
    }
    cli = main(["plan", "--config", config(plan__graph=graph)])
    assert [step.state for step in cli.result.path.steps] == ["warm", "cool"]


def test_loggers_write_below_their_edge(tmp_path, config):
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "elsewhere"}}
    main(["plan", "--config", config(trainer__logger=logger, plan__graph=SHORT)])
    assert len(list((tmp_path / "run" / "edges").rglob("metrics.csv"))) == 2
    assert not Path("elsewhere").exists()


@pytest.mark.slow
def test_fit_takes_the_same_file(tmp_path, config):
    callbacks = [{"class_path": "lightning_opplan.KneeStopping", "init_args": {"monitor": "val/score", "patience": 2}}]
    file = config(trainer__callbacks=callbacks, plan__graph=SHORT)
    cli = main(["fit", "--config", file])
    assert cli.trainer.checkpoint_callback.knee_epoch is not None
    main(["plan", "--config", file])
    assert (tmp_path / "run" / "path.yaml").exists()


@pytest.mark.slow
def test_configuration_stays_the_given_one_after_a_search(config):
    file = config(plan__graph=SHORT)
    before = main(["plan", "--config", file])  # ends with the experiment of its last edge
    again = main(["plan", "--config", file])  # trains nothing
    assert before.base_config() == again.base_config()


def test_validation_leaves_no_configuration_behind(config):
    file = config()
    for _ in range(2):  # the second would fail over the configuration of the first
        main(["validate", "--config", file])
    assert not Path("config.yaml").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*exists and is not empty")  # of checkpoints
def test_configuration_in_the_current_folder_is_not_written_over(config, tmp_path):
    shutil.copy(config(plan__graph=SHORT), "config.yaml")
    before = Path("config.yaml").read_text()
    main(["plan", "--config", "config.yaml"])
    for _ in range(2):
        main(["fit", "--config", "config.yaml"])
    assert Path("config.yaml").read_text() == before
    assert {file.name for file in Path().glob("*.yaml")} == {"config.yaml", "config-v1.yaml", "config-v2.yaml"}


@pytest.mark.slow
def test_own_script_with_fixed_classes(tmp_path, monkeypatch):
    """A project's LightningCLI becomes a planner by its name alone; its YAML has no class paths."""
    script = tmp_path / "train.py"
    script.write_text(
        "from lightning_opplan.cli import OpplanCLI\n"
        "from tests.helpers.toy import Classifier, Quadrants\n"
        "if __name__ == '__main__':\n    OpplanCLI(Classifier, Quadrants)\n"
    )
    run_script(script, {**CONFIG, "model": {"lr": 0.5}, "data": {"batch_size": 4}}, monkeypatch)


@pytest.mark.slow
def test_commands_that_are_printed_can_be_typed(tmp_path, monkeypatch, capsys):
    """Of a script with fixed classes, in a folder with spaces, and with words of a shell in it."""
    script = tmp_path / "my train.py"
    script.write_text(
        "from lightning_opplan.cli import OpplanCLI\n"
        "from tests.helpers.toy import Classifier, Quadrants\n"
        "class Tested(Classifier):\n"
        "    def test_step(self, batch, batch_idx):\n"
        "        self.log('test/score', 1.0)\n"
        "class Data(Quadrants):\n"
        "    test_dataloader = Quadrants.val_dataloader\n"
        "if __name__ == '__main__':\n    OpplanCLI(Tested, Data)\n"
    )
    run_script(script, {**CONFIG, "model": {}, "data": {}, "plan": {**CONFIG["plan"], "graph": SHORT}}, monkeypatch)
    path = str(tmp_path / "run" / "path.yaml")
    run_script(script, None, monkeypatch, "follow", "--path", path)
    (printed,) = re.findall(r"Test: +(.*)", capsys.readouterr().out)
    program, *words = shlex.split(printed)
    assert (program, Path(words[0]).resolve()) == ("python", script)
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(words[0], run_name="__main__")
    assert "test/score" in capsys.readouterr().out


@pytest.mark.process
def test_classes_in_the_current_folder_are_found(config, tmp_path):
    Path("my_script.py").write_text("from tests.helpers.toy import Classifier as Mine, Quadrants\n")
    file = config(model={"class_path": "my_script.Mine"}, plan__graph=SHORT)
    program = Path(sys.executable).with_name("opplan")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    result = subprocess.run([program, "plan", "--config", file], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "path.yaml").is_file()


class WithLoaders(toy.Classifier):
    def train_dataloader(self):
        return self.loaders().train_dataloader()

    def val_dataloader(self):
        return self.loaders().val_dataloader()

    def loaders(self):
        data = toy.Quadrants()
        data.setup("fit")
        return data


@pytest.mark.slow
def test_model_with_loaders_of_its_own_needs_no_data(config):
    content = yaml.safe_load(Path(config(plan__graph=SHORT)).read_text())
    del content["data"]
    content["model"] = {"class_path": "tests.cli.test_command_line.WithLoaders"}
    Path("config.yaml").write_text(yaml.safe_dump(content))
    assert len(main(["plan", "--config", "config.yaml"]).result.outcomes) == 2


def test_key_as_it_stands_in_the_file_gets_the_right_one_as_a_hint(config, capsys):
    graph = {"axes": [{"name": "rate", "settings": [{"model.init_args.lr": 0.1}]}]}
    said = fails(capsys, "plan", "--config", config(plan__graph=graph))
    assert said == (
        "opplan: A setting must name hyper-parameters of the configuration, got 'model.init_args.lr'. "
        "Did you mean 'model.lr'?\n"
    )


@pytest.mark.slow
def test_optimizers_of_the_command_line_are_planned_over(tmp_path, monkeypatch):
    """LightningCLI's automatic optimizers work, and their arguments can be those of a state."""
    script = tmp_path / "train.py"
    script.write_text(
        "from lightning_opplan.cli import OpplanCLI\n"
        "from tests.helpers import toy\n"
        "class Plain(toy.Classifier):\n"
        "    configure_optimizers = __import__('lightning').pytorch.LightningModule.configure_optimizers\n"
        "if __name__ == '__main__':\n    OpplanCLI(Plain, toy.Quadrants)\n"
    )
    content = yaml.safe_load(yaml.safe_dump({**CONFIG, "model": {}, "data": {}}))
    content["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    axes = [{"name": "rate", "settings": [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.01}]}]
    run_script(script, {**content, "plan": {**content["plan"], "graph": {"axes": axes}}}, monkeypatch)


def run_script(script, content, monkeypatch, command="plan", *further):
    """Plan, or do something else, by a script of a user's own."""
    config, run = script.with_name("config.yaml"), script.with_name("run")
    if content is not None:
        config.write_text(yaml.safe_dump(content))
    words = [command, "--config", str(config), "--plan.dirpath", str(run), *further]
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    runpy.run_path(str(script), run_name="__main__")
    OptimizationPath.load(run / "path.yaml")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "plan", "follow"])
def test_every_command_prints_its_configuration(config, command, capsys):
    words = ["--path", "x.yaml"] if command == "follow" else []
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", config(), *words, "--print_config"])
    assert caught.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["plan"]["knee"]["patience"] == 2


@pytest.mark.parametrize("command", ["plan", "follow", "report"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert {"plan": "--plan.knee.patience", "follow": "--path", "report": "Folder of the search"}[command] in out


def test_unknown_key_in_a_state_is_one_sentence(config, capsys, tmp_path):
    axes = [{"name": "rate", "settings": [{"model.learning_rate": 0.1}]}]
    error = fails(capsys, "plan", "--config", config(plan__graph__axes=axes))
    assert error.startswith(
        "opplan: A setting must name hyper-parameters of the configuration, got 'model.learning_rate'."
    )
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run" / "journal.jsonl").exists()


def test_value_of_a_wrong_type_is_one_sentence(config, capsys):
    axes = [{"name": "batch", "settings": [{"trainer.max_epochs": 3}, {"trainer.max_epochs": "many"}]}]
    error = fails(capsys, "plan", "--config", config(plan__graph__axes=axes))
    assert error.startswith("opplan: The setting {'trainer.max_epochs': 'many'} does not fit the configuration:")
    assert len(error.splitlines()) == 1


def test_metric_that_is_never_logged_is_one_sentence(config, capsys):
    error = fails(capsys, "plan", "--config", config(plan__monitor="val/scor"))
    assert (
        "opplan: `monitor` must be a metric that validation logs, got 'val/scor'. Did you mean 'val/score'?" in error
    )
    assert "Traceback" not in error


def test_edited_configuration_in_the_same_folder_is_refused(planned, config, capsys):
    error = fails(capsys, "plan", "--config", config(model__init_args__width=16))
    assert "is the journal of another plan: `experiment.model.init_args.width` was 8 and is now 16." in error


def test_what_is_only_shown_may_change(planned, config, capsys):
    main(["plan", "--config", config(trainer__enable_progress_bar=False, trainer__log_every_n_steps=1)])
    assert "7 of 7 edges have finished before." in capsys.readouterr().out


def test_path_that_does_not_fit_the_graph_is_refused(tmp_path, config, capsys):
    (tmp_path / "path.yaml").write_text("steps: [{state: 1-1, epochs: 2}, {state: 2-2, epochs: 1}]")
    error = fails(capsys, "follow", "--config", config(), "--path", str(tmp_path / "path.yaml"))
    assert error.startswith("opplan: Step 2 of the path must follow an edge of the graph, got 1-1 → 2-2.")


def test_missing_path_is_named(config, capsys):
    error = fails(capsys, "follow", "--config", config(), "--path", "nowhere.yaml")
    assert error.startswith("opplan: `path` must be the file of an optimization path, or the name of a published one")
    assert "got 'nowhere.yaml': no such file. Published: 'activitynet'," in error


def test_missing_graph_is_named(config, capsys):
    error = fails(capsys, "plan", "--config", config(plan__graph={}))
    assert error == "opplan: `plan.graph` must have `axes`, or `states` and `edges`, got neither.\n"


def test_report_of_an_empty_folder_is_named(tmp_path, capsys):
    assert "no journal of a search here" in fails(capsys, "report", str(tmp_path))


def test_unknown_argument_ends_with_the_parsers_status(config, capsys):
    fails(capsys, "plan", "--config", config(), "--plan.knee.pattience", "3", status=2)


def test_unknown_network_is_one_sentence(config, capsys):
    network = {"network": "dg_p3d_resnet5", "num_classes": 4}
    file = config(
        model__class_path="lightning_opplan.VideoClassifier",
        model__init_args=network,
        plan__graph={"axes": [{"name": "rate", "settings": [{"model.learning_rate": 0.1}]}]},
    )
    error = fails(capsys, "plan", "--config", file)
    assert error.startswith("opplan: `name` must be a registered network, got 'dg_p3d_resnet5'. Did you mean")
    assert len(error.splitlines()) == 1


def test_errors_of_others_keep_their_traceback(config):
    with pytest.raises(ZeroDivisionError):
        main(["plan", "--config", config(model__class_path="tests.helpers.config.Faulty", model__init_args={})])


def test_trainer_class_must_be_a_class():
    with pytest.raises(ValueError, match="`trainer_class` must be a class"):
        OpplanCLI(trainer_class=lambda: None, args=[])


def test_dry_run_trains_no_edge_and_says_what_it_would_cost(tmp_path, config, capsys):
    main(["plan", "--config", config(plan__grid={"epochs": [8]}), "--dry-run"])
    out = capsys.readouterr().out
    for words in ("epochs per edge", "device time", "critical path", "disk, at most", "hand-tuned grid, 4 trainings"):
        assert words in out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_find_what_this_process_finds(tmp_path, config):
    here = main(["plan", "--config", config(plan__num_threads=1, plan__graph=SHORT)]).result
    words = ["--plan.executor.name", "processes", "--plan.dirpath", str(tmp_path / "elsewhere")]
    there = main(["plan", "--config", config(plan__num_threads=1, plan__graph=SHORT), *words]).result
    assert there.path == here.path
    assert {e: o.curve for e, o in there.outcomes.items()} == {e: o.curve for e, o in here.outcomes.items()}


@pytest.mark.slow
def test_grid_and_study_stand_beside_the_plan(tmp_path, config, capsys):
    file = config(plan__grid={"epochs": [4]}, trainer__max_epochs=5)
    run = tmp_path / "run"
    path = main(["plan", "--config", file]).result.path
    grid = main(["grid", "--config", file]).result
    assert {step.state.partition("/")[0] for step in grid.path.steps} <= {
        f"{way} {decay} {epochs}" for way in ("1→2", "2") for decay in ("step", "cosine") for epochs in (4,)
    }
    assert len({edge.child for edge in grid.outcomes}) == 7
    assert all(outcome.knee_epoch == outcome.epochs_run for outcome in grid.outcomes.values())
    assert grid.path.total_epochs == 4
    assert not (run / "grid" / "path.yaml").exists()

    capsys.readouterr()
    study = main(["study", "--config", file]).result
    out = capsys.readouterr().out
    assert "Planned and hand-tuned" in out
    assert "the path" in out
    assert "skip" in out
    assert study.is_complete
    html = (run / "report.html").read_text()
    for words in (
        "Planned and hand-tuned",
        "Variants of the path",
        "How sure the choice is",
        f"skip {path.steps[0].state}",
    ):
        assert words in html

    main(["report", str(run)])
    assert "Variants of the path" in capsys.readouterr().out
    before = (run / "grid" / "journal.jsonl").read_bytes()
    main(["grid", "--config", file])  # trains nothing
    assert (run / "grid" / "journal.jsonl").read_bytes() == before


def test_study_needs_a_path(config, capsys):
    assert "path.yaml': no such file" in fails(capsys, "study", "--config", config())


def test_grid_needs_axes(config, capsys):
    graph = {"states": {"a": {"model.lr": 0.1}}, "edges": [["start", "a"]]}
    assert "must have `axes` for a hand-tuned grid" in fails(capsys, "grid", "--config", config(plan__graph=graph))


@pytest.mark.slow
def test_budget_ends_with_the_best_so_far_and_a_larger_one_goes_on(tmp_path, config, capsys):
    file = config()
    first = main(["plan", "--config", file, "--plan.max_gpu_hours", "1e-7"]).result
    assert not first.is_complete
    assert len(first.outcomes) == 1
    assert "The budget of 1e-07 GPU-hours is spent: 1 of 7 edges have finished" in capsys.readouterr().out
    assert "The search has not finished: 1 of 7 edges are done." in (tmp_path / "run" / "report.html").read_text()
    assert OptimizationPath.load(tmp_path / "run" / "path.yaml") == first.path
    second = main(["plan", "--config", file, "--plan.max_gpu_hours", "1"]).result
    assert second.is_complete
    assert set(first.outcomes) < set(second.outcomes)


@pytest.mark.slow
def test_epochs_of_an_edge_can_be_capped(config):
    result = main(["plan", "--config", config(plan__graph=SHORT), "--plan.max_epochs_per_edge", "3"]).result
    assert max(outcome.epochs_run for outcome in result.outcomes.values()) == 3


@pytest.mark.slow
def test_fast_preset_races_and_stops_by_confidence(tmp_path, config):
    file = config(trainer__max_epochs=40, plan__preset="fast")
    main(["plan", "--config", file])
    plan, search = Journal.of(tmp_path / "run").read()
    assert search.racing
    assert plan.options.rule.max_risk == 0.3
    assert any("with a probability below 0.3" in (o.stopping_reason or "") for o in search.outcomes.values())


def test_option_of_the_knee_that_is_given_goes_before_the_preset(tmp_path, config):
    words = ["--plan.preset", "fast", "--plan.knee.max_risk", "0"]
    main(["plan", "--config", config(plan__graph=SHORT), *words])
    plan, search = Journal.of(tmp_path / "run").read()
    assert search.racing
    assert plan.options.rule.max_risk == 0


def test_dry_run_counts_every_way_of_a_beam(config, capsys):
    main(["plan", "--config", config(), "--plan.beam", "2", "--dry-run"])
    assert "10 of 10" in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError, AssertionError, IndexError])
def test_mistakes_of_a_programmer_keep_their_traceback_wherever_they_come_from(monkeypatch, config, error):
    def fail(*_):
        raise error("curve")

    monkeypatch.setattr(OpplanCLI, "plan", fail)
    source = Path(OpplanCLI.run_command.__code__.co_filename)
    monkeypatch.setattr(fail, "__code__", fail.__code__.replace(co_filename=str(source)))
    with pytest.raises(error):
        main(["plan", "--config", config()])


def test_sentences_of_ours_end_the_command_line_in_one_line(monkeypatch, config, capsys):
    def fail(*_):
        raise ValueError("`x` must be y, got z.")

    source = Path(OpplanCLI.run_command.__code__.co_filename)
    monkeypatch.setattr(fail, "__code__", fail.__code__.replace(co_filename=str(source)))
    monkeypatch.setattr(OpplanCLI, "plan", fail)
    assert fails(capsys, "plan", "--config", config()) == "opplan: `x` must be y, got z.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan.beam", "0"], "opplan: `beam` must be at least 1, got 0."),
        (["--plan.max_gpu_hours", "0"], "opplan: `max_gpu_hours` must be above 0, got 0.0."),
        (["--plan.executor.devices_per_edge", "2", "--plan.executor.name", "processes"], "must divide the 1 devices"),
    ],
    ids=["beam", "budget", "devices"],
)
def test_wrong_options_of_the_search_are_one_sentence(config, capsys, words, message):
    error = fails(capsys, "plan", "--config", config(), *words)
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_program_explains_itself():
    program = shutil.which("opplan", path=str(Path(sys.executable).parent))
    said = subprocess.run([program, "plan", "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Search for the best path" in said
    assert "--plan.knee.patience" in said


def test_module_runs_the_same_as_the_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["opplan", "report", "nowhere"])
    with pytest.raises(SystemExit):
        runpy.run_module("lightning_opplan", run_name="__main__")
    assert "no journal of a search here" in capsys.readouterr().err


@pytest.fixture(scope="module")
def budgeted_plan(tmp_path_factory):
    """A configuration with a budget, and the folder of its finished search."""
    folder = tmp_path_factory.mktemp("budget")
    content = {
        "seed_everything": 3,
        "model": {"class_path": "tests.helpers.budgeted.Scorer"},
        "data": {"class_path": "tests.helpers.budgeted.Points"},
        "trainer": {"accelerator": "cpu", "devices": 1, "logger": False},
        "plan": {
            "dirpath": str(folder / "run"),
            "monitor": "val/accuracy",
            "budget": {"epochs": 60, "arms": 4},
            "graph": {
                "axes": [{"name": "batch", "settings": [{"data.batch_size": 16}, {"data.batch_size": 32}]}],
                "choices": {"model.lr": [0.3, 0.1, 0.01]},
            },
            "final_setting": {"data.train_on_validation": True},
        },
    }
    file = folder / "budget.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["opplan"])
        main(["plan", "--config", str(file)])
    return file, folder / "run"


@pytest.mark.slow
def test_plan_deliver_control_and_test(budgeted_plan, capsys):
    file, folder = map(str, budgeted_plan)
    main(["deliver", "--config", file])
    main(["control", "--config", file])
    for name in ("ensemble.yaml", "deliver/ensemble.yaml", "control/ensemble.yaml", "control/ensemble-cosine.yaml"):
        cli = main(["test", "--config", file, "--ensemble", f"{folder}/{name}"])
        assert set(cli.scores) == {"ensemble", "members", "num_samples"}
    capsys.readouterr()
    main(["report", folder])
    out = capsys.readouterr().out
    for expected in ("searched", "delivered", "control (linear)", "control (cosine)"):
        assert expected in out
    assert re.search("Planning is ahead|The control is ahead|are level", out)
    cli = main(["predict", "--config", file, "--ensemble", f"{folder}/deliver/ensemble.yaml"])
    assert sum(len(batch) for batch in cli.predictions) == 560


@pytest.mark.slow
def test_number_of_members_on_the_command_line(budgeted_plan, tmp_path):
    file, folder = budgeted_plan
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("deliver", "control"))
    cli = main(["deliver", "--config", str(file), "--plan.dirpath", str(tmp_path / "run"), "--members", "1"])
    assert len(cli.delivered.members) == 1


@pytest.mark.slow
def test_a_larger_budget_on_the_command_line_goes_on(budgeted_plan, tmp_path):
    file, folder = budgeted_plan
    shutil.copytree(folder, tmp_path / "run")
    before = Journal.of(folder).read()[1]
    main(["plan", "--config", str(file), "--plan.dirpath", str(tmp_path / "run"), "--plan.budget.epochs", "120"])
    after = Journal.of(tmp_path / "run").read()[1]
    assert before.spent < after.spent <= 48
    assert all(after.outcome(each.edge).epochs_run >= each.epochs_run for each in before.known)


def test_dry_run_of_a_budget(budgeted_plan, tmp_path, capsys):
    file, _ = budgeted_plan
    main(["plan", "--config", str(file), "--plan.dirpath", str(tmp_path / "new"), "--dry-run"])
    out = capsys.readouterr().out
    assert "epochs per edge" in out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan.budget", "null"], "`plan.graph.choices` must be left out without a `plan.budget`"),
        (["--plan.budget.epochs", "0"], "must be a number above 0 of one of"),
        (["--plan.budget", '{"epochs": 5, "gpu_hours": 1}'], "must be a number above 0 of one of"),
        (["--plan.graph", '{"states": {"a": {"model.lr": 0.1}}, "edges": [["start", "a"]]}'], "got `states`"),
        (["--plan.graph.choices", '{"model.lrr": [0.1, 0.2]}'], "Did you mean 'model.lr'"),
    ],
    ids=["no budget", "zero", "two units", "states", "key"],
)
def test_wrong_budgets_are_one_sentence(budgeted_plan, tmp_path, capsys, words, message):
    file, _ = budgeted_plan
    with pytest.raises(SystemExit):
        main(["plan", "--config", str(file), "--plan.dirpath", str(tmp_path / "new"), *words])
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["deliver", "control"])
def test_delivery_and_control_need_a_search(budgeted_plan, tmp_path, capsys, command):
    file, _ = budgeted_plan
    with pytest.raises(SystemExit):
        main([command, "--config", str(file), "--plan.dirpath", str(tmp_path / "new")])
    assert "has no search yet. Run `opplan plan`" in capsys.readouterr().err


@pytest.mark.slow
def test_follow_takes_the_path_of_a_budget_and_anneals(budgeted_plan, tmp_path):
    file, folder = budgeted_plan
    main(
        [
            "follow", "--config", str(file), "--path", str(folder / "path.yaml"), "--plan.dirpath", str(tmp_path),
            "--anneal.share", "0.5",
        ]
    )  # fmt: skip
    followed = yaml.safe_load((tmp_path / "follow" / "followed.yaml").read_text())
    assert followed["averaging"] is True
    assert followed["anneal"] == {"share": 0.5, "shape": "linear"}
