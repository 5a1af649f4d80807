"""Every configuration that is shipped runs, on less of its data and for fewer epochs."""

import sys

import pytest

from lightning_opplan.cli import ConfigRecipe, main
from tests.helpers.scripted import PROJECT
from tests.helpers.trees import TEST, TRAIN, TREES

CONFIGS = sorted(file.name for file in (PROJECT / "configs").glob("*.yaml"))
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]


@pytest.fixture(autouse=True)
def _no_words_of_pytest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])


def test_all_configurations_are_tested():
    tested = [
        "cctv_direction4.yaml",
        "demo.yaml",
        "demo_paper.yaml",
        "scfd_fight.yaml",
        *(f"{name}.yaml" for name in TREES),
    ]
    assert sorted(tested) == CONFIGS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "root"),
    [("cctv_direction4.yaml", "cctv_direction4"), ("scfd_fight.yaml", "scfd_fight/videos")],
    ids=["cctv", "fight"],
)
def test_real_clips(tmp_path, real_data, monkeypatch, name, root):
    """Trains on real clips, and every state of the plan fits the configuration. The demo's: `test_examples.py`."""
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(PROJECT / "configs" / name), "--data.init_args.root", str(real_data / "videos" / root)]
    cli = main(["fit", *words, *SHORT, "--trainer.default_root_dir", str(tmp_path)])
    assert "val/accuracy" in cli.trainer.callback_metrics
    ConfigRecipe(cli).check(cli.plan_options().graph.build().settings.values())


SMALL = {
    "model.init_args.network": "dg_p3d_tiny", "model.init_args.weights": "null", "model.init_args.num_classes": "2",
    "data.init_args.short_side": "[32, 40]", "data.init_args.crop_size": "32", "data.init_args.test_crop_size": "32",
    "data.init_args.num_workers": "0", "data.init_args.num_test_clips": "2", "data.init_args.eval_batch_size": "2",
    "trainer.precision": "32-true", "trainer.accelerator": "cpu", "trainer.devices": "1",
    "trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TREES))
def test_public_data_sets(tmp_path, monkeypatch, write_video, name):
    """Trains and tests in the layout of the data set, and every state of the plan fits the configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    TREES[name](tmp_path / "set", write_video)
    words = ["--config", str(PROJECT / "configs" / f"{name}.yaml"), "--data.init_args.root", str(tmp_path / "set")]
    for key, value in SMALL.items():
        words += [f"--{key}", value]
    cli = main(["fit", *words, *SHORT, "--trainer.default_root_dir", str(tmp_path)])
    assert {split: len(videos) for split, videos in cli.datamodule.videos.items()} == {
        "train": 2 * (TRAIN - TEST), "val": 2 * TEST, "test": 2 * TEST,
    }  # fmt: skip
    assert cli.datamodule.train_spec.flip is not name.startswith("something")
    graph = cli.plan_options().graph.build()
    with_three = not name.startswith("something")
    assert (len(graph.states), len(graph.edges)) == ((19, 36) if with_three else (13, 22))
    ConfigRecipe(cli).check(graph.settings.values())
    cli = main(["test", *words, "--trainer.limit_test_batches", "1"])
    assert "test/top1" in cli.trainer.callback_metrics


@pytest.mark.slow
def test_the_paper_s_search_on_the_demo_s_clips(tmp_path):
    """With two epochs an edge, from the first edge to the test of what was found."""
    words = ["--config", str(PROJECT / "configs" / "demo_paper.yaml"), "--plan.dirpath", str(tmp_path / "run")]
    words += ["--data.init_args.root", str(tmp_path / "videos"), "--data.init_args.num_train", "4"]
    words += ["--data.init_args.num_test", "1", "--trainer.max_epochs", "1"]
    assert main(["plan", *words]).result.is_complete
    main(["follow", *words, "--path", str(tmp_path / "run" / "path.yaml")])
    follow = tmp_path / "run" / "follow"
    main(["test", "--config", str(follow / "config.yaml"), "--ckpt_path", str(follow / "weights.ckpt")])
