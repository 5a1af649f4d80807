"""Plan a training from Python: batch size and learning rate of a small network on points in a plane."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import Axis, PathSearchTuner, TransitionGraph


class Classifier(LightningModule):
    def __init__(self, learning_rate: float = 0.1) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        accuracy = (self.network(batch[0]).argmax(dim=1) == batch[1]).float().mean()
        self.log("val/accuracy", accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9)


class Points(LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        points = torch.randn(1000, 2, generator=generator)
        labels = ((points.prod(dim=1) > 0) ^ (torch.rand(1000, generator=generator) < 0.1)).long()
        self.train, self.val = TensorDataset(points[:500], labels[:500]), TensorDataset(points[500:], labels[500:])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, 500)


def trainer(**options: object) -> Trainer:
    return Trainer(max_epochs=60, accelerator="cpu", logger=False, **options)


def main(dirpath: str = "runs/plan_in_python") -> None:
    graph = TransitionGraph.lattice(
        axes=[
            Axis("batch", [{"data.batch_size": 16}, {"data.batch_size": 64}], reversible=True),
            Axis("rate", [{"model.learning_rate": 0.1}, {"model.learning_rate": 0.01}]),
        ]
    )
    tuner = PathSearchTuner(
        graph, model=Classifier, data=Points, trainer=trainer, monitor="val/accuracy", dirpath=dirpath,
        knee={"patience": 5},
    )  # fmt: skip
    print(tuner.search().path)


if __name__ == "__main__":
    main()
