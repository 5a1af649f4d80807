"""A LightningCLI project: pictures, linked arguments, a callback with defaults of its own, no `super()` anywhere."""

import json
import shlex
import sys
from pathlib import Path

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_opplan.cli import OpplanCLI


class Pictures(LightningDataModule):
    """Squares at one of four places; the noise may be less in training."""

    def __init__(self, batch_size: int = 16, num_classes: int = 4, noise: float = 0.6) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        if stage not in ("fit", "test"):
            raise RuntimeError(f"this project knows no stage {stage!r}")
        if stage == "fit":
            self.train, self.val = self.draw(96, 0, self.hparams.noise), self.draw(64, 1, 0.6)
        else:
            self.test = self.draw(64, 2, 0.6)

    def draw(self, number: int, seed: int, noise: float) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(number) % self.hparams.num_classes
        pictures = noise * torch.randn(number, 1, 4, 4, generator=generator)
        for picture, label in zip(pictures, labels.tolist(), strict=True):
            picture[0, 2 * (label // 2) : 2 * (label // 2) + 2, 2 * (label % 2) : 2 * (label % 2) + 2] += 0.7
        return TensorDataset(pictures, labels)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, 64)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, 64)


class Classifier(LightningModule):
    def __init__(self, num_classes: int, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, num_classes))
        self.accuracy = MulticlassAccuracy(num_classes)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.accuracy(self.network(batch[0]), batch[1])
            self.log("val_acc", self.accuracy)

    def test_step(self, batch, batch_idx):
        self.accuracy(self.network(batch[0]), batch[1])
        self.log("test_acc", self.accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


class ProjectCLI(OpplanCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.num_classes", "model.num_classes")
        parser.add_lightning_class_args(LearningRateMonitor, "rates")
        parser.set_defaults({"rates.logging_interval": "epoch"})


CONFIG = {
    "trainer": {"accelerator": "cpu", "max_epochs": 12, "enable_progress_bar": False},
    "plan": {
        "monitor": "val_acc",
        "mode": "max",
        "knee": {"patience": 2},
        "progress": False,
        "graph": {
            "axes": [
                {"name": "noise", "settings": [{"data.noise": 0.1}, {"data.noise": 0.6}]},
                {"name": "rate", "settings": [{"model.lr": 0.1}, {"model.lr": 0.02}]},
            ]
        },
    },
}


def command(folder: Path, *words: str) -> ProjectCLI:
    return ProjectCLI(Classifier, Pictures, args=[*words[:1], "--config", str(folder / "config.yaml"), *words[1:]])


def main(folder: Path) -> None:
    run = folder / "a run"  # folders have spaces
    content = {**CONFIG, "plan": {**CONFIG["plan"], "dirpath": str(run)}}
    content["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder)}
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    knee = json.dumps([{"class_path": "lightning_opplan.KneeStopping", "init_args": {"monitor": "val_acc"}}])
    fitted = command(folder, "fit", "--trainer.callbacks", knee)
    plan = command(folder, "plan")
    command(folder, "follow", "--path", str(run / "path.yaml"))
    words = ["--config", str(run / "follow" / "config.yaml"), "--ckpt_path", str(run / "follow" / "weights.ckpt")]
    tested = ProjectCLI(Classifier, Pictures, args=["test", *words])
    found = {
        "edges": len(plan.result.outcomes),
        "knee": Path(fitted.trainer.checkpoint_callback.best_model_path).name,
        "tested": float(tested.trainer.callback_metrics["test_acc"]),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    print(shlex.join(sys.argv))
    main(Path(sys.argv[1]))
