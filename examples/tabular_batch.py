"""Tables: batch size by learning rate for a network on columns drawn by scikit-learn (`pip install scikit-learn`).

With a large batch an epoch has fewer steps, each in a better direction. Which is worth more depends on the rate.
"""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from sklearn.datasets import make_classification
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_opplan import Axis, PathSearchTuner, SearchSpace, score_ensemble


class Classifier(LightningModule):
    def __init__(self, learning_rate: float = 0.05) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(
            nn.Linear(40, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6)
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.network(rows)

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


class Table(LightningDataModule):
    def __init__(self, batch_size: int = 128) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        rows, labels = make_classification(
            3000, 40, n_informative=12, n_redundant=8, n_classes=6, flip_y=0.02, class_sep=1.5, random_state=0
        )
        samples = TensorDataset(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels))
        self.train, self.val, self.test = random_split(samples, [800, 700, 1500], torch.Generator().manual_seed(0))

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, 700)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, 1500)


def trainer(**options: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


def main(dirpath: str = "runs/tabular_batch", epochs: int = 150) -> None:
    space = SearchSpace(
        axes=[Axis("size", [{"data.batch_size": size} for size in (16, 32, 128)])],
        choices={"model.learning_rate": [0.2, 0.05, 0.01]},
    )
    tuner = PathSearchTuner(
        space, model=Classifier, data=Table, trainer=trainer, monitor="val/accuracy", dirpath=dirpath,
        budget={"epochs": epochs}, progress=False,
    )  # fmt: skip
    found = tuner.search()
    print(f"Chosen: {dict(found.path.steps[-1].setting)}")
    for size in (16, 32, 128):
        states = tuner.spec.graph.settings
        arms = [arm for arm in found.outcomes.values() if states[arm.edge.child]["data.batch_size"] == size]
        seconds = sum(arm.seconds - arm.start_seconds for arm in arms) / sum(arm.epochs_run for arm in arms)
        best = max(arm.value for arm in arms if arm.value is not None)
        print(f"batches of {size}: val/accuracy {best:.3f} at best, {seconds:.2f} s an epoch")
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
