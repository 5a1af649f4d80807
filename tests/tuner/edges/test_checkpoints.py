import os

import pytest
import torch

from lightning_opplan.tuner.edges.checkpoints import load_weights, newest_checkpoint, save_weights
from tests.helpers import toy


def checkpoint(file, epoch, age, within=0):
    file.parent.mkdir(exist_ok=True)
    progress = {"fit_loop": {"epoch_progress": {"current": {"processed": epoch - within, "started": epoch}}}}
    torch.save({"loops": progress, "state_dict": {}, "optimizer_states": [1], "callbacks": {}}, file)
    os.utime(file, (1000 - age, 1000 - age))
    return file


def test_newest_checkpoint_wins(tmp_path):
    checkpoint(tmp_path / "a.ckpt", 3, age=5)
    newest = checkpoint(tmp_path / "b.ckpt", 4, age=1)
    assert newest_checkpoint(tmp_path) == (str(newest), 4)


def test_what_a_kill_left_is_cleared_away(tmp_path):
    older = checkpoint(tmp_path / "a.ckpt", 3, age=5)
    checkpoint(tmp_path / "b.ckpt", 4, age=1)
    os.truncate(tmp_path / "b.ckpt", 100)
    os.utime(tmp_path / "b.ckpt", (999, 999))
    (tmp_path / "c.ckpt.tmp").write_bytes(b"half")
    with pytest.warns(UserWarning, match="b.ckpt cannot be loaded"):
        assert newest_checkpoint(tmp_path) == (str(older), 3)
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_checkpoints_from_within_an_epoch_are_passed_over(tmp_path):
    whole = checkpoint(tmp_path / "a.ckpt", 3, age=5)
    checkpoint(tmp_path / "b.ckpt", 4, age=1, within=1)
    assert newest_checkpoint(tmp_path) == (str(whole), 3)


def test_own_checkpoint_may_hold_anything(tmp_path):
    file = checkpoint(tmp_path / "a.ckpt", 3, age=0)
    torch.save({**torch.load(file), "hyper_parameters": {"folder": tmp_path}}, file)
    assert newest_checkpoint(tmp_path) == (str(file), 3)


def test_furthest_checkpoint_wins_whatever_a_copy_made_of_the_times(tmp_path):
    checkpoint(tmp_path / "a.ckpt", 3, age=0)
    furthest = checkpoint(tmp_path / "b.ckpt", 4, age=9)
    assert newest_checkpoint(tmp_path) == (str(furthest), 4)


def test_no_checkpoint_means_the_beginning(tmp_path):
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_weights_leave_the_training_state_behind(tmp_path):
    source = checkpoint(tmp_path / "a.ckpt", 3, age=0)
    save_weights(str(source), tmp_path / "weights.ckpt")
    assert set(torch.load(tmp_path / "weights.ckpt", weights_only=True)) == {"state_dict"}


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save({"state_dict": toy.Classifier(width=3).state_dict()}, tmp_path / "w.ckpt")
    with pytest.raises(ValueError, match=r"must fit the model of the next, but .*w.ckpt does not"):
        load_weights(toy.Classifier(width=8), str(tmp_path / "w.ckpt"))
