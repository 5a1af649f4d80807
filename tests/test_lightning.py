"""What we use of Lightning's private parts: each test says what breaks without it."""

import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.loops import _FitLoop, _TrainingEpochLoop
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.optim.swa_utils import AveragedModel

import lightning_opplan._lightning as private
from lightning_opplan.cli import main
from tests.helpers.config import CONFIG
from tests.helpers.scripted import PROJECT, Points, Scripted, quiet_trainer

PACKAGE = PROJECT / "lightning_opplan"
OURS = {"_abc_impl", "__slots__"}
LOOPS = {"fit_loop", "epoch_loop", "validate_loop", "epoch_progress", "batch_progress", "config_dump", "procs"}


def private_names():
    """Names with an underscore that Lightning's classes have of their own, and those of its loops."""
    classes = (
        Trainer, Callback, Checkpoint, WeightAveraging, LightningCLI, LightningArgumentParser, LightningModule,
        Strategy, DDPStrategy, _FitLoop, _TrainingEpochLoop,
    )  # fmt: skip
    of_torch = set(dir(torch.nn.Module))
    names = {name for each in classes for name in dir(each) if re.match(r"_[a-z]", name)}
    return (names | LOOPS) - of_torch - OURS


def test_private_parts_are_touched_in_one_file_alone():
    used = re.compile(rf"(?:\.|^    def )({'|'.join(map(re.escape, sorted(private_names())))})\b", re.MULTILINE)
    imported = re.compile(r"from lightning[\w.]* import [^\n]*\b_[A-Za-z]|import lightning[\w.]*\._")
    found = {}
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        text = text.replace("lightning_opplan._lightning", "")
        names = {*used.findall(text), *(match.strip() for match in imported.findall(text))}
        if names and file.name != "_lightning.py":
            found[str(file.relative_to(PACKAGE))] = names
    assert not found


def test_every_use_has_a_test():
    text = (PROJECT / "tests" / "test_lightning.py").read_text()
    assert [name for name in private.__all__ if f"private.{name}" not in text] == []


class Looking(Callback):
    """Calls a function at the end of every batch, validation or epoch."""

    def __init__(self, hook, look):
        self.seen = []
        setattr(self, hook, lambda trainer, *_: self.seen.append(look(trainer)))


def fitted(tmp_path, *callbacks, **options):
    trainer = quiet_trainer(tmp_path, callbacks=list(callbacks), **{"max_epochs": 2, **options})
    trainer.fit(Scripted([0.1]), Points())
    return trainer


def test_epochs_of_a_fit_can_be_limited_after_the_trainer_was_made(tmp_path):
    """Without: an edge could not be capped, nor a path followed for its epochs."""
    trainer = quiet_trainer(tmp_path, max_epochs=9, min_epochs=7)
    private.limit_epochs(trainer, 8)
    assert (trainer.max_epochs, trainer.min_epochs) == (8, 7)
    private.limit_epochs(trainer, 2, is_exact=True)
    trainer.fit(Scripted([0.1]), Points())
    assert trainer.current_epoch == 2


def test_end_of_a_fit_is_seen_at_the_end_of_its_last_epoch(tmp_path):
    """Without: an edge that ends at the epoch of its pause would count as paused, and train one more."""
    looking = Looking("on_train_epoch_end", private.has_reached_a_limit)
    fitted(tmp_path, looking, max_epochs=3)
    assert looking.seen == [False, False, True]


def test_batches_of_an_epoch_are_counted(tmp_path):
    """Without: validation within an epoch could not say after which part of it."""
    looking = Looking("on_validation_end", lambda t: (private.num_batches_done(t), private.is_last_batch(t)))
    fitted(tmp_path, looking, max_epochs=1, val_check_interval=0.5, num_sanity_val_steps=0)
    assert looking.seen == [(2, False), (4, True)]


def test_step_of_a_validation_is_that_of_its_metrics(tmp_path):
    """Without: the knee would stand in other rows of a log than the metric that it was found in."""
    logged = []

    class Logged(DummyLogger):
        def log_metrics(self, metrics, step=None):
            logged.extend([step] if "val/acc" in metrics else [])

    looking = Looking("on_validation_end", private.logging_step)
    fitted(tmp_path, looking, logger=Logged(), num_sanity_val_steps=0)
    assert looking.seen == logged == [3, 7]


@pytest.mark.parametrize(("interval", "expected"), [(1, [1, 2]), (2, [None, 1, None, 2])], ids=["epochs", "within"])
def test_checkpoints_of_whole_epochs_are_told_from_those_within(tmp_path, interval, expected):
    """Without: a resumed training would begin in the middle of an epoch, with a loader that is shuffled anew."""
    files = []

    def save(trainer):
        files.append(tmp_path / f"{len(files)}.ckpt")
        trainer.save_checkpoint(files[-1])

    looking = [Looking("on_train_epoch_end", save)]
    if interval == 2:
        half = lambda t: private.num_batches_done(t) == 2 and save(t)  # noqa: E731
        looking.insert(0, Looking("on_train_batch_end", half))
    fitted(tmp_path, *looking)
    assert [private.whole_epochs(torch.load(file, weights_only=True)) for file in files] == expected


def test_validation_within_a_fit_is_as_one_alone(tmp_path):
    """Without: y₀ needed a validation of its own, before the fit, for which a DataModule may not be set up."""
    seen = []

    class Watching(Scripted):
        def validation_step(self, batch, batch_idx):
            seen.append((self.trainer.state.fn, self.trainer.sanity_checking, torch.is_inference_mode_enabled()))

    class First(Callback):
        def on_train_start(self, trainer, pl_module):
            before = torch.get_rng_state()
            found = private.validate_within_fit(trainer)
            assert float(found["val/acc"]) == pytest.approx(0.1)
            assert torch.equal(torch.get_rng_state(), before)
            assert trainer.training
            assert not trainer.callback_metrics

    trainer = quiet_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0, callbacks=[First()])
    trainer.fit(Watching([0.1, 0.2]), Points())
    assert seen == [("validate", False, False), ("fit", False, False), ("fit", False, False)]
    assert float(trainer.callback_metrics["val/acc"]) == pytest.approx(0.2)


def test_callback_can_be_added_to_a_trainer(tmp_path):
    """Without: scores could not be written without a word in the configuration."""
    trainer, callback = quiet_trainer(tmp_path), Callback()
    private.add_callback(trainer, callback)
    assert trainer.callbacks[-1] is callback


def test_callbacks_of_a_trainer_can_be_removed(tmp_path):
    """Without: a search would print a summary for every edge, and callbacks that watch a metric end a given path."""
    trainer = quiet_trainer(tmp_path, enable_model_summary=True)
    assert any(isinstance(callback, ModelSummary) for callback in private.callbacks_of(trainer))
    private.remove_callbacks(trainer, lambda callback: isinstance(callback, ModelSummary))
    assert not any(isinstance(callback, ModelSummary) for callback in trainer.callbacks)
    assert private.callbacks_of(SimpleNamespace()) == []


def test_state_of_a_callback_is_known_by_its_arguments():
    """Without: two `KneeStopping` on two metrics would share one state in a checkpoint."""
    keys = {private.state_key(Callback(), monitor=monitor) for monitor in ("a", "b")}
    assert keys == {"Callback{'monitor': 'a'}", "Callback{'monitor': 'b'}"}


def test_averaged_model_is_there_within_a_fit(tmp_path):
    """Without: two ranks would go on with other averages than before a pause."""
    averaging = WeightAveraging()
    looking = Looking("on_validation_end", lambda trainer: type(private.averaged_model(averaging)))
    assert private.averaged_model(averaging) is None
    fitted(tmp_path, averaging, looking, max_epochs=1, num_sanity_val_steps=0)
    assert looking.seen == [AveragedModel]


def test_runs_of_loggers_are_finished():
    """Without: Weights & Biases would write all edges into one run."""
    finished = []
    experiment = SimpleNamespace(finish=lambda: finished.append(True))
    private.finish_loggers([SimpleNamespace(_experiment=experiment), SimpleNamespace()])
    assert finished == [True]


def test_loggers_take_names(tmp_path):
    """Without: a dashboard could not tell the edges of a search apart. What loggers keep: `test_loggers.py`."""
    logger = TensorBoardLogger(tmp_path)
    names = {"group": "mine", "name": "a → b", "tags": {}, "run_id": None, "parent_id": None}
    private.name_run(logger, version="a.b", **names)
    assert logger.log_dir == str(tmp_path / "mine" / "a.b")
    within = TensorBoardLogger(tmp_path)
    private.name_run(within, version=None, **names)
    assert within.log_dir == str(tmp_path / "lightning_logs" / "version_0")


@pytest.mark.parametrize(
    ("strategy", "spawns", "starts"), [("ddp", False, True), ("ddp_spawn", True, False), ("auto", False, False)]
)
def test_strategies_are_told_apart_by_how_they_start_processes(tmp_path, strategy, spawns, starts):
    """Without: a search on spawned processes would lose what its callbacks learned, and say nothing."""
    trainer = quiet_trainer(tmp_path, devices=2 if strategy != "auto" else 1, strategy=strategy)
    assert private.spawns_processes(trainer.strategy) is spawns
    assert private.starts_processes(trainer.strategy) is starts


def test_processes_are_started_before_the_first_fit(tmp_path):
    """Without: the first decision would be made by every rank for itself. Two real ranks: `test_survival.py`."""
    launched = []
    launcher = SimpleNamespace(launch=lambda function, trainer: launched.append((function, trainer)))
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher, setup_environment="environment"))
    assert private.launch(trainer)
    assert launched == [("environment", trainer)]
    assert not private.launch(quiet_trainer(tmp_path))


def test_further_trainers_know_the_processes_of_the_first(tmp_path):
    """Without: SIGTERM in a later fit would hang for ever, as the other ranks are not told."""
    first, other = (quiet_trainer(tmp_path, devices=2, strategy="ddp").strategy for _ in range(2))
    first.launcher.procs = ["rank 1"]
    private.share_processes(first, other)
    assert other.launcher.procs == ["rank 1"]
    private.share_processes(first, quiet_trainer(tmp_path).strategy)


def test_hooks_of_lightnings_command_line_are_ours(tmp_path, monkeypatch):
    """Without: no subcommand of ours, and no experiment made anew from another configuration."""
    monkeypatch.setattr("sys.argv", ["opplan"])
    monkeypatch.chdir(tmp_path)
    seen = []

    def command(cli):
        base = cli.base_config()
        first, second = (cli.experiment(base | {"model": {**base["model"], "init_args": {"lr": lr}}}, [])
                         for lr in (0.1, 0.2))  # fmt: skip
        seen.append((first.model.hparams.lr, second.model.hparams.lr, first.trainer is second.trainer))
        seen.append((cli.value_of("seed_everything"), cli.instantiate_group("plan").monitor, cli.is_seeded))

    monkeypatch.setattr("lightning_opplan.cli.OpplanCLI.plan", command)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    cli = main(["plan", "--config", "config.yaml"])
    assert isinstance(cli, private.OpenCLI)
    assert seen == [(0.1, 0.2, False), (3, "val/score", True)]
