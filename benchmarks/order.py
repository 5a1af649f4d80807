"""Whether the order of frames survives the whole way from file to network.

    python benchmarks/order.py --root <folder cctv_direction4, with index.csv and videos/>

Trains the small DG-P3D on 16 neighbouring frames, without flips, of clips whose time-reversed twins carry the opposite
label, and tests it on frames in order and in random order; then trains and tests it on frames in random order. What is
left then is what single frames tell. Seed 0.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_opplan import OptimizationPath, VideoClassifier, VideoDataModule
from lightning_opplan.planning.path import PathStep
from lightning_opplan.tuner.edges.checkpoints import load_weights
from lightning_opplan.tuner.edges.recipe import FactoryRecipe
from lightning_opplan.tuner.follow import follow_path


class Shuffled(Dataset[tuple[Tensor, int]]):
    """The clips of a dataset with their frames in random order."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clip, label = self.dataset[index]
        return clip[..., torch.randperm(clip.shape[-3]), :, :], label


class Clips(VideoDataModule):
    def __init__(self, *, shuffled: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.shuffled = shuffled

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[tuple[Tensor, int]]:
        return super()._loader(Shuffled(dataset) if self.shuffled else dataset, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int, nargs=2, default=[40, 15], help="At a rate of 0.05, and of 0.005.")
    options = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}")

    def data(**changes: Any) -> Clips:
        fixed = {
            "root": options.root, "annotations": "index.csv", "group_column": "source_group", "clip_length": 16,
            "short_side": (56, 64), "crop_size": 56, "flip": False, "batch_size": 16, "val_size": 0.2,
            "num_test_clips": 4, "train_on_validation": True, "cache": True,
        }  # fmt: skip
        return Clips(**{**fixed, **changes})

    def model(**changes: Any) -> VideoClassifier:
        return VideoClassifier("dg_p3d_tiny", 4, **{"dropout": 0.2, **changes})

    def trainer(**changes: Any) -> Trainer:
        return Trainer(logger=False, devices=1, gradient_clip_val=40.0, enable_progress_bar=False, **changes)

    recipe = FactoryRecipe(model=model, data=data, trainer=trainer)
    rates = [{"model.learning_rate": rate} for rate in (0.05, 0.005)]
    for shuffled in (False, True):
        begin = time.perf_counter()
        steps = [
            PathStep(state=f"rate-{number}", epochs=epochs, setting={**setting, "data.shuffled": shuffled})
            for number, (epochs, setting) in enumerate(zip(options.epochs, rates, strict=True), start=1)
        ]
        with tempfile.TemporaryDirectory() as folder:
            weights = follow_path(OptimizationPath(steps=tuple(steps)), recipe, dirpath=Path(folder), progress=False)
            network = model()
            load_weights(network, str(weights))
        trained = "in random order" if shuffled else "in order"
        for tested in (False, True):
            seed_everything(0)
            (metrics,) = trainer().test(network, data(shuffled=tested), verbose=False)
            order = "in random order" if tested else "in order"
            print(f"trained {trained}, tested {order}: top-1 {metrics['test/top1']:.1%}")
        print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
