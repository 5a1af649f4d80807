"""A search with a budget that takes seconds, its delivery and its control; also a script to be killed."""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from lightning_opplan import Axis, PathSearchTuner, SearchSpace, run_control, run_delivery
from lightning_opplan.planning.journal import Journal
from lightning_opplan.tuner.edges.store import EdgeFolders

BUDGET = {"epochs": 90, "arms": 5}
FINAL = {"data.train_on_validation": True}


class Scorer(LightningModule):
    def __init__(self, lr=0.1, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, points):
        return self.network(points)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self._log("val", batch)

    def test_step(self, batch, batch_idx):
        self._log("test", batch)

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).softmax(1)

    def _log(self, stage, batch):
        scores = self(batch[0])
        accuracy = (scores.argmax(1) == batch[1]).float().mean()
        self.log(f"{stage}/accuracy", accuracy, sync_dist=True, batch_size=len(batch[0]))
        loss = functional.cross_entropy(scores, batch[1])
        self.log(f"{stage}/loss", loss, sync_dist=True, batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)


class Points(LightningDataModule):
    """Quadrants, of which one is twice as likely as the other; a tenth of the labels is wrong."""

    def __init__(self, batch_size=16, train_on_validation=False):
        super().__init__()
        self.batch_size, self.train_on_validation = batch_size, train_on_validation

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(800, 2, generator=generator)
        labels = ((points[:, 0] * points[:, 1] > 0) ^ (torch.rand(800, generator=generator) < 0.1)).long()
        parts = TensorDataset(points[:160], labels[:160]), TensorDataset(points[160:240], labels[160:240])
        self.train = ConcatDataset(parts) if self.train_on_validation else parts[0]
        self.val, self.test = parts[1], TensorDataset(points[240:], labels[240:])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 80)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=280)

    def predict_dataloader(self):
        return DataLoader(self.test, batch_size=280)


def space(rates=(0.3, 0.1, 0.01)):
    return SearchSpace(
        axes=[Axis("batch", [{"data.batch_size": size} for size in (8, 32)])], choices={"model.lr": list(rates)}
    )


def tuner(dirpath, **options):
    trainer = partial(
        Trainer, accelerator="cpu", devices=options.pop("devices", 1), strategy=options.pop("strategy", "auto"),
        max_epochs=4, logger=False,
    )  # fmt: skip
    defaults = {
        "model": Scorer, "data": Points, "trainer": trainer, "monitor": "val/accuracy", "dirpath": dirpath,
        "budget": BUDGET, "progress": False, "num_threads": 1,
    }  # fmt: skip
    return PathSearchTuner(options.pop("graph", None) or space(), **{**defaults, **options})


def fingerprint(dirpath):
    """All that two equal runs must share, to the last bit: curves, rungs and weights, of the delivery, too."""
    found = {}
    for place in ("", "deliver"):
        journal = Journal.of(Path(dirpath, place))
        if not journal.file.is_file():
            continue
        _, search = journal.read()
        folders = EdgeFolders(Path(dirpath, place), search.edges)
        edges = {}
        for outcome in search.known:
            weights = torch.load(folders[outcome.edge].weights, weights_only=True)["state_dict"]
            state = {name: tensor.double().tolist() for name, tensor in weights.items()}
            edges[str(outcome.edge)] = [outcome.value, outcome.epochs_run, outcome.curve, state]
        found[place] = {"edges": edges, "path": str(search.path())}
    return json.loads(json.dumps(found))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    folder, devices = sys.argv[1], int(sys.argv[2])
    executor = sys.argv[3] if len(sys.argv) > 3 else "in_process"
    made = tuner(folder, devices=devices, strategy="ddp" if devices > 1 else "auto", executor=executor)
    made.search()
    run_delivery(made, setting=FINAL)
    if "--control" in sys.argv:
        run_control(made, setting=FINAL)
    name = f"result-{os.environ.get('LOCAL_RANK', 0)}.json"
    Path(folder, name).write_text(json.dumps(fingerprint(folder)))
