"""A forecasting model: encoders, a loss module and a dataset's parameters among what it saves, loaders made by them.

It keeps in its checkpoints what it needs to be made again, objects of its own classes among it, and takes them out of
a checkpoint by its hook.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanAbsoluteError

from lightning_opplan import KneeStopping, PathSearchTuner, TransitionGraph


class Encoder:
    """Numbers categories; fitted to the data."""

    def __init__(self):
        self.classes = None

    def fit(self, names):
        self.classes = {name: index for index, name in enumerate(sorted(set(names)))}
        return self

    def __call__(self, names):
        return torch.tensor([self.classes[name] for name in names])


class Series:
    """Weekly series of some shops, and how they are prepared."""

    def __init__(self, number, seed, encoder=None, scale=None):
        generator = np.random.default_rng(seed)
        self.shops = generator.choice(["north", "south", "west"], number)
        self.encoder = encoder or Encoder().fit(self.shops)
        level = {"north": 3.0, "south": 5.0, "west": 8.0}
        time = generator.uniform(0, 6, (number, 1)) + np.arange(12)
        values = np.array([level[shop] for shop in self.shops])[:, None] + np.sin(time)
        values += generator.normal(0, 0.2, values.shape)
        self.scale = values.std() if scale is None else scale
        self.values = values / self.scale

    def parameters(self):
        return {"encoder": self.encoder, "scale": self.scale, "shops": np.unique(self.shops)}

    def loader(self, batch_size, shuffle=False):
        values = torch.tensor(self.values, dtype=torch.float32)
        return DataLoader(TensorDataset(self.encoder(self.shops), values[:, :11], values[:, 11]), batch_size, shuffle)


class Forecaster(LightningModule):
    def __init__(self, encoders, loss, hidden=8, learning_rate=0.03, scale=1.0, dataset_parameters=None):
        super().__init__()
        self.save_hyperparameters()
        self.dataset_parameters = dataset_parameters
        self.embedding = nn.Embedding(len(encoders["shop"].classes), 4)
        self.network = nn.Sequential(nn.Linear(15, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.loss, self.error = loss, MeanAbsoluteError()

    @classmethod
    def from_dataset(cls, series, **options):
        return cls({"shop": series.encoder}, nn.SmoothL1Loss(), dataset_parameters=series.parameters(), **options)

    def forward(self, shops, history):
        return self.network(torch.cat([self.embedding(shops), history], 1)).squeeze(1)

    def training_step(self, batch, batch_idx):
        return self.loss(self(*batch[:2]), batch[2])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(self(*batch[:2]), batch[2]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(self(*batch[:2]), batch[2]))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["dataset_parameters"] = self.dataset_parameters
        checkpoint["special"] = {"loss": self.loss, "version": 1}

    def on_load_checkpoint(self, checkpoint):
        self.dataset_parameters = checkpoint.get("dataset_parameters")
        self.version = checkpoint.get("special", {}).get("version")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.hparams.learning_rate)


TRAINING = Series(96, seed=0)
VALIDATION = Series(64, 1, TRAINING.encoder, TRAINING.scale)
TEST = Series(64, 2, TRAINING.encoder, TRAINING.scale)


def model(learning_rate=0.03):
    return Forecaster.from_dataset(TRAINING, learning_rate=learning_rate, scale=TRAINING.scale)


def loaders(batch_size=16):
    return TRAINING.loader(batch_size, shuffle=True), VALIDATION.loader(64)


def trainer(callbacks=(), **options):
    return Trainer(
        accelerator="cpu", max_epochs=12, callbacks=list(callbacks), gradient_clip_val=0.1, logger=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


def main(folder):
    stopping = KneeStopping("val_loss", mode="min")
    trainer([stopping], default_root_dir=folder / "fit").fit(model(), *loaders())
    graph = TransitionGraph(
        {"fast": {"model.learning_rate": 0.03}, "slow": {"model.learning_rate": 0.003}},
        [("start", "fast"), ("fast", "slow")],
    )
    tuner = PathSearchTuner(
        graph, model=model, data=loaders, trainer=trainer, monitor="val_loss", mode="min", dirpath=folder / "run",
        knee={"patience": 2}, progress=False,
    )  # fmt: skip
    result = tuner.search()
    weights = tuner.follow()
    (tested,) = trainer().test(model(), TEST.loader(64), ckpt_path=weights, verbose=False)
    found = {
        "edges": len(result.outcomes), "knee": Path(stopping.best_model_path).name, "tested": tested["test_loss"],
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
