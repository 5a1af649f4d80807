"""Every configuration that is shipped runs, on less of its data and for fewer epochs."""

import sys

import pytest

from lightning_opplan.cli import main
from tests.conftest import PROJECT

CONFIGS = sorted(file.name for file in (PROJECT / "configs").glob("*.yaml"))
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]


@pytest.fixture(autouse=True)
def _no_words_of_pytest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])


def test_all_configurations_are_tested():
    assert CONFIGS == ["cctv_direction4.yaml", "demo.yaml", "scfd_fight.yaml"]


def plan(name, tmp_path, *words):
    main(
        ["plan", "--config", str(PROJECT / "configs" / name), "--plan.dirpath", str(tmp_path / "run"), *SHORT, *words]
    )
    assert (tmp_path / "run" / "path.yaml").exists()


def test_demo(tmp_path):
    small = ["--data.init_args.num_train", "4", "--data.init_args.num_test", "1"]
    plan("demo.yaml", tmp_path, "--data.init_args.root", str(tmp_path / "videos"), *small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "root"),
    [("cctv_direction4.yaml", "cctv_direction4"), ("scfd_fight.yaml", "scfd_fight/videos")],
    ids=["cctv", "fight"],
)
def test_real_clips(tmp_path, real_data, name, root):
    plan(name, tmp_path, "--data.init_args.root", str(real_data / "videos" / root))
