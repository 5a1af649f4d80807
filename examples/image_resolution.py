"""Images: resolution by learning rate for a small ConvNet, on scikit-learn's digits (`pip install scikit-learn`).

A network that pools at its end takes images of any size, and a quarter of the pixels costs a quarter of the
arithmetic.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_opplan import Axis, PathSearchTuner, SearchSpace, score_ensemble


class Classifier(LightningModule):
    def __init__(self, learning_rate: float = 0.1) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def accuracy(self, batch: list[Tensor]) -> Tensor:
        return (self(batch[0]).argmax(dim=1) == batch[1]).float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9, weight_decay=1e-3)


class Digits(LightningDataModule):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size = size

    def setup(self, stage: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        samples = TensorDataset(images, torch.tensor(digits.target))
        self.train, self.val, self.test = random_split(samples, [400, 400, 997], torch.Generator().manual_seed(0))

    def smaller(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images, labels = map(torch.stack, zip(*samples, strict=True))
        return functional.adaptive_avg_pool2d(images, self.size), labels

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, 32, shuffle=True, collate_fn=self.smaller)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:  # at the full size in every state
        return DataLoader(self.val, 400)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, 997)


def trainer(**options: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


def main(dirpath: str = "runs/image_resolution", epochs: int = 240) -> None:
    space = SearchSpace(
        axes=[Axis("size", [{"data.size": size} for size in (4, 6, 8)])],
        choices={"model.learning_rate": [0.2, 0.05, 0.01]},
    )
    tuner = PathSearchTuner(
        space, model=Classifier, data=Digits, trainer=trainer, monitor="val/accuracy", dirpath=dirpath,
        budget={"epochs": epochs}, progress=False,
    )  # fmt: skip
    found = tuner.search()
    print(f"Chosen: {dict(found.path.steps[-1].setting)}")
    for size in (4, 6, 8):
        states = tuner.spec.graph.settings
        arms = [arm for arm in found.outcomes.values() if states[arm.edge.child]["data.size"] == size]
        seconds = sum(arm.seconds - arm.start_seconds for arm in arms) / sum(arm.epochs_run for arm in arms)
        best = max(arm.value for arm in arms if arm.value is not None)
        print(f"size {size}: val/accuracy {best:.3f} at best, {seconds:.2f} s an epoch")
    for name, trained in (
        ("planned", tuner.deliver()),
        ("plain cosine, same epochs", tuner.control(schedules=["cosine"])),
    ):
        (file,) = trained.ensembles.values()
        scores = score_ensemble(file, tuner.spec.recipe)
        alone = ", ".join(f"{each['test/accuracy']:.3f}" for each in scores["members"].values())
        print(f"{name}: test/accuracy {scores['ensemble']['test/accuracy']:.3f} (each network alone: {alone})")


if __name__ == "__main__":
    main()
