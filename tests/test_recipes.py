"""The recipes run on small data, with small networks in the place of the large ones."""

import json
import sys

import pytest
import torch
import yaml
from PIL import Image

from lightning_opplan.cli import main
from lightning_opplan.models import get_model
from tests.helpers.libraries import transformers_model
from tests.helpers.scripted import PROJECT

RECIPES = PROJECT / "configs" / "recipes"
NAMES = sorted(file.stem for file in RECIPES.glob("*.yaml"))
QUICK = {
    "data.init_args.num_workers": 0, "data.init_args.batch_size": 2, "trainer.precision": "32-true",
    "trainer.accelerator": "cpu", "trainer.limit_train_batches": 1, "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False, "plan.progress": False,
}  # fmt: skip
SMALL = {
    "mvit_videos": {
        "model.init_args.network": "torchvision/mc3_18", "model.init_args.weights": None,
        "data.init_args.crop_size": 32, "data.init_args.num_test_clips": 1, "plan.budget.epochs": 10,
    },
    "videomae_videos": {
        "model.init_args.network_options": {}, "data.init_args.num_test_clips": 1, "trainer.max_epochs": 1,
        "plan.knee.min_points": 5,
        "plan.graph.axes": [
            {"name": "depth", "settings": [{"model.frozen_stages": 4}, {"model.frozen_stages": 0}]},
            {"name": "rate", "settings": [{"model.learning_rate": 0.0005}, {"model.learning_rate": 0.00005}]},
        ],
    },
    "timm_resolution": {
        "model.init_args.network": "timm/test_resnet", "model.init_args.weights": None, "trainer.max_epochs": 1,
        "plan.knee.min_points": 5, "data.init_args.eval_crop_size": 48,
    },
    "timm_depth": {
        "model.init_args.network": "timm/test_vit", "model.init_args.weights": None, "trainer.max_epochs": 1,
        "plan.knee.min_points": 5,
        "plan.graph.axes": [
            {"name": "depth", "settings": [{"model.frozen_stages": n} for n in (7, 3, 0)]},
            {"name": "rate", "settings": [{"model.learning_rate": 0.0005}, {"model.learning_rate": 0.00005}]},
        ],
    },
}  # fmt: skip
EACH = [pytest.param(name, marks=pytest.mark.transformers) if name.startswith("videomae") else name for name in NAMES]


@pytest.fixture(autouse=True)
def _no_words_of_pytest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])


def write_data(folder, name, write_video):
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        for label, kind in enumerate(("calm", "wild")):
            for number in range(count):
                file = folder / split / kind / str(number)
                if name.endswith("videos"):
                    write_video(file.with_suffix(".mp4"), num_frames=20, size=(40, 40))
                else:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (60, 50), (90 * label, number, 3)).save(file.with_suffix(".png"))


def words_for(tmp_path, name, write_video):
    write_data(tmp_path / "set", name, write_video)
    options = {**QUICK, **SMALL[name], "data.init_args.root": str(tmp_path / "set")}
    if name == "videomae_videos":
        transformers_model("videomae", 9).save_pretrained(tmp_path / "weights")
        options["model.init_args.weights"] = str(tmp_path / "weights")
    words = ["--config", str(RECIPES / f"{name}.yaml")]
    for key, value in options.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return words


def test_all_recipes_are_tested():
    assert sorted(SMALL) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_recipe_is_planned_followed_and_tested(tmp_path, monkeypatch, write_video, name):
    monkeypatch.chdir(tmp_path)
    words = words_for(tmp_path, name, write_video)
    assert main(["plan", *words]).result.is_complete
    run = tmp_path / "runs" / name
    if name == "mvit_videos":
        main(["deliver", *words, "--members", "1"])
        cli = main(["test", *words, "--ensemble", str(run / "deliver" / "ensemble.yaml")])
        assert cli.scores
        return
    main(["follow", *words, "--path", str(run / "path.yaml")])
    config, weights = run / "follow" / "config.yaml", run / "follow" / "weights.ckpt"
    cli = main(["test", "--config", str(config), "--ckpt_path", str(weights)])
    assert "test/top1" in cli.trainer.callback_metrics


@pytest.mark.parametrize("name", EACH)
def test_recipe_as_it_is_has_two_lines_to_change_and_fits_its_network(name):
    text = (RECIPES / f"{name}.yaml").read_text()
    assert [line.split(":")[0].strip() for line in text.splitlines() if "← yours" in line] == ["num_classes", "root"]
    content = yaml.safe_load(text)
    with torch.device("meta"):
        network = get_model(content["model"]["init_args"]["network"], num_classes=2)
    axes = content["plan"]["graph"].get("axes", [])
    settings = [setting for axis in axes for setting in axis["settings"]]
    depths = [setting["model.frozen_stages"] for setting in settings if "model.frozen_stages" in setting]
    assert not depths or max(depths) == len(network.stages), "the classifier alone"
    made_for = network.preprocessing
    for size in {made_for.crop_size, *(setting.get("data.crop_size", made_for.crop_size) for setting in settings)}:
        frames = () if made_for.clip_length is None else (made_for.clip_length,)
        network.check_shape((3, *frames, size, size))
