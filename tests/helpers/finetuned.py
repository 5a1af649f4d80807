"""A search on the demo's clips with a small network of another library; also a script to be killed.

python -m tests.helpers.finetuned FOLDER torchvision|timm|transformers
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from PIL import Image

from lightning_opplan import Axis, PathSearchTuner, TransitionGraph, VideoClassifier
from lightning_opplan.data import DemoDataModule, ImageDataModule
from lightning_opplan.data.demo import CLASSES, write_demo_videos
from lightning_opplan.data.frames import memory
from lightning_opplan.modules import ImageClassifier
from tests.helpers.libraries import SMALL_BERT

OPTIONS = {
    "optimizer": "adamw", "weight_decay": 0.05, "decayed": "weights", "layer_decay": 0.8, "label_smoothing": 0.1,
    "mixup": 0.4, "cutmix": 1.0, "ema_decay": 0.6, "learning_rate": 0.003,
}  # fmt: skip
VIDEOS = {"num_train": 3, "num_test": 1}


def write_pictures(folder):
    """The middle frames of the demo's clips, in a folder per class."""
    if folder.exists():
        return
    videos = write_demo_videos(folder.with_name("videos"), **VIDEOS, seed=0)
    for file in sorted(videos.glob("*/*/*.mp4")):
        target = folder / file.parent.relative_to(videos)
        target.mkdir(parents=True, exist_ok=True)
        (frame,) = memory.clip_frames(str(file), [20], modality="rgb", short_side=48, decoder="pyav")
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(target / f"{file.stem}.png")


def parts(place, source):
    """Functions that make model and data, and the number of stages before the classifier."""
    if source == "timm":
        write_pictures(place / "pictures")
        model = partial(ImageClassifier, "timm/test_resnet", len(CLASSES), **OPTIONS)
        options = {"crop_size": 32, "eval_crop_size": 48, "batch_size": 4, "val_size": 8}
        return model, partial(ImageDataModule, str(place / "pictures"), **options), 5
    network = {"torchvision": "torchvision/mc3_18", "transformers": "transformers/videomae"}[source]
    options = SMALL_BERT if source == "transformers" else {}
    model = partial(VideoClassifier, network, len(CLASSES), network_options=options, **OPTIONS)
    data = partial(
        DemoDataModule, str(place / "videos"), **VIDEOS, clip_length=16, crop_size=32, short_side=(32, 36),
        batch_size=4, eval_batch_size=4, val_size=8, cache=True, num_test_clips=1, num_test_crops=1,
    )  # fmt: skip
    return model, data, 5 if source == "torchvision" else 4


def tuner(folder, source):
    """Head first, then all: three edges of two epochs."""
    model, data, stages = parts(folder.parent, source)
    trainer = partial(
        Trainer, accelerator="cpu", devices=1, max_epochs=2, limit_train_batches=2, limit_val_batches=2, logger=False,
        enable_progress_bar=False,
    )  # fmt: skip
    graph = TransitionGraph.lattice(
        axes=[Axis("depth", [{"model.frozen_stages": stages}, {"model.frozen_stages": 0}])]
    )
    return PathSearchTuner(
        graph, model=model, data=data, trainer=trainer, monitor="val/loss", mode="min", dirpath=folder, seed=3,
        value="observed", start_value=9.0, progress=False,
    )  # fmt: skip


def fingerprint(result):
    """What was found, and the sum of all weights, to be compared exactly."""
    state = torch.load(result.weights, weights_only=True)["state_dict"]
    return {
        "edges": {str(edge): [outcome.value, outcome.curve] for edge, outcome in result.outcomes.items()},
        "weights": {key: value.double().sum().item() for key, value in state.items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    found = fingerprint(tuner(target, sys.argv[2]).search())
    (target / "result.json").write_text(json.dumps(found))
