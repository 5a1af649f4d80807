"""An edge by itself: pauses that change nothing."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import PlanRecord
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.edges.edge import run_edge
from lightning_opplan.tuner.edges.folder import TrainingFolder
from lightning_opplan.tuner.edges.job import EdgeJob, Training
from lightning_opplan.tuner.edges.ranks import Ranks
from tests.helpers import toy


class Runner:
    """Runs pieces of an edge from the start, each with everything made anew."""

    def __init__(self, folder, **options):
        self.recipe = toy.tuner(folder, **options).spec.recipe
        self.folder = TrainingFolder(folder / "edge")

    def __call__(self, until):
        setting = {"data.batch_size": 8, "model.lr": 0.1}
        job = EdgeJob(
            edge=Edge("start", "1-1"),
            training=Training(setting=setting, weights=None, seed=5, num_threads=1, folder=self.folder),
            until=until,
            start_value=-1.0,
            monitor="val/score",
            mode="max",
            rule=KneeRule(patience=7, min_points=5),
            plan="",
        )
        return run_edge(job, self.recipe, Ranks(self.recipe.build_trainer(str(self.folder.path))))

    @property
    def weights(self):
        return torch.load(self.folder.weights, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An edge left alone, which stops at its knee after more than nine epochs."""
    runner = Runner(tmp_path_factory.mktemp("whole"))
    outcome = runner(None)
    assert 9 < outcome.epochs_run < 12
    return outcome, runner.weights


@pytest.mark.parametrize("pauses", [(1, 5, 9), (2, 2, 4), (7, 8, 9)], ids=str)
def test_edge_paused_three_times_ends_as_if_left_alone(tmp_path, whole, pauses):
    runner = Runner(tmp_path)
    for until in pauses:
        paused = runner(until)
        assert paused.is_paused
        assert (paused.epochs_run, paused.weights) == (until, None)
        assert paused.curve == whole[0].curve[: until + 1]  # y₀ first
        assert runner.folder.known() is None
        assert list(runner.folder.resume.glob("*.ckpt"))
    ended = runner(None)
    assert ended == whole[0]
    assert all(torch.equal(tensor, runner.weights[name]) for name, tensor in whole[1].items())
    assert not runner.folder.resume.exists()


def test_edge_that_ends_before_its_pause_is_no_longer_paused(tmp_path, whole):
    assert Runner(tmp_path)(200) == whole[0]
    assert not Runner(tmp_path)(200).is_paused


def test_edge_is_not_paused_at_the_epoch_at_which_it_ends(tmp_path, whole):
    ended = Runner(tmp_path)(int(whole[0].epochs_run))
    assert not ended.is_paused
    assert ended.sha256 == whole[0].sha256


def test_pause_trains_no_epoch_twice_when_it_is_asked_for_again(tmp_path):
    epochs = []

    class Counting(toy.Classifier):
        def on_train_epoch_start(self):
            epochs.append(self.trainer.current_epoch)

    runner = Runner(tmp_path, model=Counting)
    first, again = runner(4), runner(4)
    assert epochs == [0, 1, 2, 3]
    assert again == first
    assert again.is_paused
    runner(6)
    assert epochs == [0, 1, 2, 3, 4, 5]


def test_limits_of_the_trainer_stay_what_they_are_while_paused(tmp_path):
    """Schedulers that look at `max_epochs` must see the same number in every piece."""
    seen = []

    class Looking(toy.Classifier):
        def on_train_start(self):
            seen.append((self.trainer.max_epochs, self.trainer.estimated_stepping_batches))

    runner = Runner(tmp_path, model=Looking)
    runner(2)
    runner(None)
    assert seen == [(12, 240), (12, 240)]


def test_least_epochs_go_before_a_pause(tmp_path):
    trainer = partial(Trainer, accelerator="cpu", logger=False, max_epochs=12, min_epochs=6)
    paused = Runner(tmp_path, trainer=trainer)(2)
    assert (paused.is_paused, paused.epochs_run) == (True, 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 6}], ids=["every 2nd", "within"]
)
def test_pause_at_an_epoch_that_is_not_validated_at_its_end_loses_nothing(tmp_path, options):
    epochs = []

    class Counting(toy.Classifier):
        def on_train_epoch_start(self):
            epochs.append(self.trainer.current_epoch)

    trainer = partial(Trainer, accelerator="cpu", logger=False, max_epochs=12, **options)
    whole = Runner(tmp_path / "whole", trainer=trainer)
    expected = whole(None)
    runner = Runner(tmp_path / "parts", trainer=trainer, model=Counting)
    for until in (3, 5, 6):
        assert runner(until).epochs_run == until
    assert epochs == [0, 1, 2, 3, 4, 5]
    assert runner(None) == expected


def test_pause_does_not_show_in_what_other_callbacks_see(tmp_path):
    seen = []

    class Looking(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(trainer.current_epoch)

    class Late(Looking, Checkpoint):
        """Called after all other callbacks."""

    def trainer(callbacks, **options):
        return Trainer(accelerator="cpu", logger=False, max_epochs=3, callbacks=[*callbacks, Late()], **options)

    Runner(tmp_path, trainer=trainer)(3)
    assert seen == [0, 1, 2]


class InPieces(Search):
    """The paper's search, three epochs at a time."""

    def ask(self, running=()):
        work = super().ask(running)
        done = self.paused[work.edge].epochs_run if work and work.edge in self.paused else 0
        return work and replace(work, until=done + 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["in_process", pytest.param("processes", marks=pytest.mark.slow)], ids=["here", "processes"]
)
def test_search_in_pieces_finds_what_it_finds_in_one(tmp_path, searched, monkeypatch, capsys, executor):
    def pieces(record, outcomes=()):
        return InPieces(record.graph, mode=record.mode, outcomes=outcomes)

    monkeypatch.setattr(PlanRecord, "search", pieces)
    result = toy.tuner(tmp_path, executor=executor, progress=True).search()
    assert toy.fingerprint(result, tmp_path) == toy.fingerprint(toy.tuner(searched).search(), searched)
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()[1:]]
    pauses = [(line["edge"], line["epochs_run"]) for line in lines if line["type"] == "pause"]
    expected = [(list(e), n) for e, o in result.outcomes.items() for n in range(3, int(o.epochs_run), 3)]
    assert sorted(pauses) == sorted(expected)
    assert "paused, -0." in capsys.readouterr().out
    assert not list(tmp_path.rglob("resume"))
