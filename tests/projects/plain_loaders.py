"""A script of some lines: a module that is told its learning rate, two loaders, a Trainer."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import Axis, KneeStopping, PathSearchTuner, TransitionGraph


class Regression(LightningModule):
    def __init__(self, lr=0.05):
        super().__init__()
        self.lr = lr
        self.layer = nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        return (self.layer(batch[0]) - batch[1]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def loader(number, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(number, 8, generator=generator)
    targets = points.sum(1, keepdim=True) + 0.3 * torch.randn(number, 1, generator=generator)
    return DataLoader(TensorDataset(points, targets), **options)


def loaders(batch_size=8):
    return loader(64, 0, batch_size=batch_size, shuffle=True), loader(64, 1, batch_size=64)


def trainer(callbacks=(), **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", max_epochs=12, callbacks=list(callbacks), **quiet, **options)


def main(folder):
    own = trainer([KneeStopping("val_loss", mode="min")], default_root_dir=folder / "fit")
    own.fit(Regression(), *loaders())
    graph = TransitionGraph.lattice(
        axes=[
            Axis("batch", [{"data.batch_size": 8}, {"data.batch_size": 32}]),
            Axis("rate", [{"model.lr": 0.05}, {"model.lr": 0.01}]),
        ]
    )
    tuner = PathSearchTuner(
        graph, model=Regression, data=loaders, trainer=trainer, monitor="val_loss", mode="min", dirpath=folder / "run",
        knee={"patience": 2}, progress=False,
    )  # fmt: skip
    result = tuner.search()
    weights = tuner.follow()
    last = result.path.steps[-1].setting
    (tested,) = trainer().test(
        Regression(lr=last["model.lr"]), loader(64, 2, batch_size=64), ckpt_path=weights, verbose=False
    )
    found = {
        "edges": len(result.outcomes),
        "knee": Path(own.checkpoint_callback.best_model_path).name,
        "tested": tested["test_loss"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
