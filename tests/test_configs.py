"""Every configuration that is shipped runs, on less of its data and for fewer epochs."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import LightningModule

from lightning_opplan import OptimizationPath
from lightning_opplan.cli import ConfigRecipe, OpplanCLI, main
from lightning_opplan.paths import list_paths
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
        "flow.yaml",
        "from_kinetics400.yaml",
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


def words_for(tmp_path, name, write_video, *overlays):
    """Arguments of a configuration on a miniature of its data set."""
    folder = tmp_path / "set" / name
    if not folder.exists():
        folder.mkdir(parents=True)
        TREES[name](folder, write_video)
    words = ["--config", str(PROJECT / "configs" / f"{name}.yaml")]
    for overlay in overlays:
        words += ["--config", str(PROJECT / "configs" / f"{overlay}.yaml")]
    words += ["--data.init_args.root", str(folder)]
    for key, value in SMALL.items():
        if key != "model.init_args.weights" or "from_kinetics400" not in overlays:
            words += [f"--{key}", value]
    return [*words, "--trainer.limit_train_batches", "1"]


def shortened(tmp_path, name, words):
    """A published path with an epoch for each of its states, as a file."""
    cli = OpplanCLI(LightningModule, subclass_mode_model=True, run=False, args=words)
    path = OptimizationPath.load(name, graph=cli.plan_options().graph.build())
    steps = tuple(replace(step, epochs=1) for step in path.steps)
    file = tmp_path / f"{name}.yaml"
    replace(path, steps=steps).save(file)
    return str(file)


OTHER = {"kinetics400": "kinetics600", "something_v1": "something_v2", "something_v2": "something_v1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_paths())
def test_a_published_path_is_followed_on_its_data_set_and_on_another(tmp_path, monkeypatch, write_video, name):
    monkeypatch.chdir(tmp_path)
    own = name.partition("_from_")[0]
    for data in (own, OTHER.get(own, "kinetics400")):
        words = words_for(tmp_path, data, write_video)
        file = shortened(tmp_path, name, words)
        main(["follow", *words, "--path", file, "--plan.dirpath", f"runs/{data}", "--take_settings", "graph"])
        assert (tmp_path / "runs" / data / "follow" / "weights.ckpt").is_file()


@pytest.mark.slow
def test_a_path_of_rgb_is_followed_on_flow(tmp_path, monkeypatch, write_video):
    """One overlay turns the configuration to flow; nothing else is said."""
    monkeypatch.chdir(tmp_path)
    words = [*words_for(tmp_path, "kinetics400", write_video, "flow"), "--data.init_args.flow_dir", "flow"]
    main(["flow", *words, "--short_side", "40", "--num_processes", "2"])
    cli = main(["fit", *words, *SHORT, "--trainer.default_root_dir", str(tmp_path)])
    assert cli.model.network.in_channels == 2
    assert next(iter(cli.datamodule.train_dataloader()))[0].shape[1] == 2
    file = shortened(tmp_path, "kinetics400", words)
    main(["follow", *words, "--path", file])
    config = str(tmp_path / "runs" / "flow" / "follow" / "config.yaml")
    cli = main(["test", "--config", config, "--ckpt_path", "runs/flow/follow/weights.ckpt"])
    assert "test/top1" in cli.trainer.callback_metrics


@pytest.mark.slow
def test_two_steps(tmp_path, monkeypatch, write_video):
    """Kinetics-400 is followed, then HMDB51 planned from its weights, the classifiers apart."""
    monkeypatch.chdir(tmp_path)
    words = words_for(tmp_path, "kinetics400", write_video)
    main(["follow", *words, "--path", shortened(tmp_path, "kinetics400", words)])
    graph = {"axes": [{"name": "rate", "settings": [{"model.learning_rate": 0.01}, {"model.learning_rate": 0.001}]}]}
    words = [*words_for(tmp_path, "hmdb51", write_video, "from_kinetics400"), "--trainer.max_epochs", "1"]
    words += ["--model.init_args.num_classes", "3", "--plan.graph", json.dumps({**graph, "branches": {}})]
    words += ["--plan.knee.min_points", "5"]
    with pytest.raises(SystemExit):  # there are two classes
        main(["plan", *words])
    words += ["--model.init_args.num_classes", "2"]
    cli = main(["plan", *words])
    assert cli.result.is_complete
    assert (tmp_path / "runs" / "from_kinetics400" / "path.yaml").is_file()
    model = ConfigRecipe(cli).build_model({})
    known = torch.load("runs/kinetics400/follow/weights.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(model.network.conv1.weight, known["network.conv1.weight"])


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
