"""A project from a template: network, optimizer and scheduler are handed to the module, and are its hyper-parameters.

As the configurations of Hydra build them: the optimizer is a partial one, which gets the parameters later. The module
keeps its best validation, and forgets it where training starts.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_opplan import KneeStopping, PathSearchTuner, TransitionGraph


class Digits(LightningDataModule):
    def __init__(self, data_dir=Path("data"), batch_size=16):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.data_train = self.data_val = self.data_test = None

    def setup(self, stage=None):
        if self.data_train is None and self.data_val is None:
            generator = torch.Generator().manual_seed(0)
            points = torch.randn(192, 8, generator=generator)
            labels = (points[:, :2] > 0).long() @ torch.tensor([1, 2])
            points += 0.3 * torch.randn(points.shape, generator=generator)
            self.data_train = TensorDataset(points[:64], labels[:64])
            self.data_val = TensorDataset(points[64:128], labels[64:128])
            self.data_test = TensorDataset(points[128:], labels[128:])

    def train_dataloader(self):
        return DataLoader(self.data_train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data_val, 64)

    def test_dataloader(self):
        return DataLoader(self.data_test, 64)


class Module(LightningModule):
    def __init__(self, net, optimizer, scheduler=None, compile=False, work_dir=Path("work")):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.val_acc, self.val_loss, self.test_acc = MulticlassAccuracy(4), MeanMetric(), MulticlassAccuracy(4)
        self.val_acc_best = MaxMetric()

    def forward(self, points):
        return self.net(points)

    def on_train_start(self):
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        scores = self(batch[0])
        self.val_loss(functional.cross_entropy(scores, batch[1]))
        self.val_acc(scores, batch[1])
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True)

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True)

    def test_step(self, batch, batch_idx):
        self.test_acc(self(batch[0]), batch[1])
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True)

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        if self.hparams.scheduler is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.hparams.scheduler(optimizer=optimizer)}}


def module(lr=0.1, dropout=0.0):
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4))
    return Module(net, partial(torch.optim.SGD, lr=lr), partial(torch.optim.lr_scheduler.StepLR, step_size=90))


def trainer(callbacks=(), default_root_dir=".", **options):
    own = [ModelCheckpoint(Path(default_root_dir, "theirs"), monitor="val/acc", mode="max"), ModelSummary()]
    logger = CSVLogger(default_root_dir, name="csv")
    return Trainer(
        accelerator="cpu", max_epochs=12, callbacks=[*own, *callbacks], default_root_dir=default_root_dir,
        logger=logger, enable_progress_bar=False, log_every_n_steps=1, **options,
    )  # fmt: skip


def main(folder):
    stopping = KneeStopping("val/acc", mode="max")
    own = trainer([stopping], default_root_dir=folder / "fit")
    own.fit(module(), datamodule=Digits())
    graph = TransitionGraph(
        {"dropped": {"model.dropout": 0.3, "model.lr": 0.1}, "whole": {"model.dropout": 0.0, "model.lr": 0.02}},
        [("start", "dropped"), ("dropped", "whole"), ("start", "whole")],
    )
    tuner = PathSearchTuner(
        graph, model=module, data=Digits, trainer=trainer, monitor="val/acc", mode="max", dirpath=folder / "run",
        knee={"patience": 2}, progress=False,
    )  # fmt: skip
    result = tuner.search()
    weights = tuner.follow()
    (tested,) = trainer(default_root_dir=folder / "test").test(module(), Digits(), ckpt_path=weights, verbose=False)
    found = {
        "edges": len(result.outcomes), "knee": Path(stopping.best_model_path).name, "tested": tested["test/acc"],
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
