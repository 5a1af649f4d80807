"""Three lines stop any Lightning training at the knee of its validation curve: a network on points in a plane."""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import KneeStopping


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 3e-3)


def noisy_points(count: int) -> TensorDataset:
    points = torch.randn(count, 2)
    labels = (points.prod(dim=1) > 0) ^ (torch.rand(count) < 0.2)
    return TensorDataset(points, labels.long())


def main() -> None:
    seed_everything(0)
    stopping = KneeStopping("val/loss", mode="min", patience=10)
    trainer = Trainer(max_epochs=500, callbacks=[stopping], accelerator="cpu", logger=False, enable_progress_bar=False)
    train, val = DataLoader(noisy_points(200), 32, shuffle=True), DataLoader(noisy_points(500), 500)
    trainer.fit(Classifier(), train, val)
    print(stopping.stopping_reason)
    trainer.validate(dataloaders=val, ckpt_path="best")


if __name__ == "__main__":
    main()
