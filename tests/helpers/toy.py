"""A search that takes seconds: a small network with dropout on shuffled points; also a script to be killed."""

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
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import Axis, PathSearchTuner, TransitionGraph
from lightning_opplan.planning.search import Search


class Classifier(LightningModule):
    def __init__(self, lr=0.1, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(2, width), nn.Dropout(0.2), nn.ReLU(), nn.Linear(width, 2))

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        loss = functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("val/score", -loss, sync_dist=True, batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr, momentum=0.9)


class Quadrants(LightningDataModule):
    def __init__(self, batch_size=16):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(240, 2, generator=generator)
        labels = ((points[:, 0] * points[:, 1] > 0) ^ (torch.rand(240, generator=generator) < 0.1)).long()
        self.train, self.val = TensorDataset(points[:160], labels[:160]), TensorDataset(points[160:], labels[160:])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 80)


def graph(rates=(0.1, 0.01), sizes=(8, 32)):
    return TransitionGraph.lattice(
        axes=[
            Axis("batch", [{"data.batch_size": size} for size in sizes], reversible=True),
            Axis("rate", [{"model.lr": rate} for rate in rates]),
        ]
    )


def tuner(dirpath, **options):
    trainer = partial(
        Trainer, accelerator="cpu", devices=options.pop("devices", 1), strategy=options.pop("strategy", "auto"),
        max_epochs=options.pop("max_epochs", 12), logger=False,
    )  # fmt: skip
    defaults = {
        "model": Classifier, "data": Quadrants, "trainer": trainer, "monitor": "val/score", "start_value": -1.0,
        "dirpath": dirpath, "knee": {"patience": 3, "min_points": 5}, "progress": False, "num_threads": 1,
    }  # fmt: skip
    return PathSearchTuner(options.pop("graph", None) or graph(), **{**defaults, **options})


def fingerprint(result, dirpath, plan=None):
    """All that two equal searches must share, to the last bit; of weights, those that were kept."""
    weights = {}
    for edge in Search(plan or graph(), outcomes=result.outcomes.values()).winners.values():
        outcome = result.outcomes[edge]
        (folder,) = Path(dirpath).glob(f"edges/*_{edge.parent}--{edge.child}")
        state = torch.load(folder / outcome.weights, weights_only=True)["state_dict"]
        weights[str(edge)] = {name: tensor.double().tolist() for name, tensor in state.items()}
    edges = {str(edge): [o.value, o.knee_epoch, o.epochs_run, o.curve] for edge, o in result.outcomes.items()}
    # As a file would have it: searches in processes of their own write theirs to one.
    return json.loads(json.dumps({"path": str(result.path), "edges": edges, "weights": weights}))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    torch.set_num_threads(1)
    folder, devices = sys.argv[1], int(sys.argv[2])
    strategy = "ddp" if devices > 1 else "auto"
    executor = sys.argv[3] if len(sys.argv) > 3 else "in_process"
    plan = graph((0.1,), (8,)) if "--one-state" in sys.argv else graph()
    found = tuner(folder, graph=plan, devices=devices, strategy=strategy, executor=executor, num_threads=1).search()
    name = f"result-{os.environ.get('LOCAL_RANK', 0)}.json"
    Path(folder, name).write_text(json.dumps(fingerprint(found, folder, plan)))
