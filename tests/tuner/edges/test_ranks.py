import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_opplan.tuner.edges.ranks import Ranks
from tests.helpers.scripted import quiet_trainer


def test_one_process_decides_for_itself(tmp_path):
    ranks = Ranks(quiet_trainer(tmp_path))
    assert ranks.is_first
    assert ranks.decide(lambda: 42) == 42


def test_errors_of_a_decision_are_raised(tmp_path):
    def decision():
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        Ranks(quiet_trainer(tmp_path)).decide(decision)


def test_spawned_processes_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="must keep its processes from one fit to the next"):
        Ranks(quiet_trainer(tmp_path, devices=2, strategy="ddp_spawn"))
