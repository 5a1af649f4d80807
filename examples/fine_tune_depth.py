"""Fine-tuning: frozen depth by learning rate, on scikit-learn's digits (`pip install scikit-learn`).

A small ConvNet learns the digits 0 to 4 from many images, and is then fine-tuned on 5 to 9 with forty. First the head,
then deeper layers: the paper's search says how long each, and whether at all.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import Axis, PathSearchTuner, TransitionGraph, score_ensemble


class Classifier(LightningModule):
    def __init__(self, learning_rate: float = 0.03, frozen: int = 0, pretrained: str | None = None) -> None:
        super().__init__()
        self.learning_rate, self.frozen = learning_rate, frozen
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            ]
        )
        self.head = nn.Linear(128, 5)
        if pretrained:
            self.stages.load_state_dict(torch.load(pretrained))
        self.stages[:frozen].requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return self.head(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def accuracy(self, batch: list[Tensor]) -> Tensor:
        return (self(batch[0]).argmax(dim=1) == batch[1]).float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, self.learning_rate, momentum=0.9)


class Digits(LightningDataModule):
    """Five of the ten digits; of the labels that are to be fine-tuned on, few images are for training."""

    def __init__(self, first: int = 5, num_train: int = 40) -> None:
        super().__init__()
        self.first, self.num_train = first, num_train

    def setup(self, stage: str) -> None:
        digits = load_digits()
        chosen = torch.from_numpy((digits.target >= self.first) & (digits.target < self.first + 5))
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[chosen] / 16
        labels = torch.tensor(digits.target)[chosen] - self.first
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        bounds = (0, self.num_train, self.num_train + 200, len(labels))
        self.train, self.val, self.test = (
            TensorDataset(images[part], labels[part]) for part in (order[start:end] for start, end in pairwise(bounds))
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, 20, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.val, 200)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, 1000)


def trainer(**options: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


def pretrain(file: Path, epochs: int) -> str:
    """Learn the digits 0 to 4, and keep the stages without the head."""
    seed_everything(0, verbose=False)
    model = Classifier(learning_rate=0.05)
    trainer(max_epochs=epochs, enable_checkpointing=False).fit(model, Digits(first=0, num_train=500))
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.stages.state_dict(), file)
    return str(file)


def main(dirpath: str = "runs/fine_tune_depth", longest: int = 30) -> None:
    pretrained = pretrain(Path(dirpath, "pretrained.pt"), epochs=longest // 2)
    graph = TransitionGraph.lattice(
        axes=[
            Axis("frozen", [{"model.frozen": 2}, {"model.frozen": 1}, {"model.frozen": 0}]),
            Axis("rate", [{"model.learning_rate": 0.1}, {"model.learning_rate": 0.01}]),
        ]
    )
    tuner = PathSearchTuner(
        graph, model=partial(Classifier, pretrained=pretrained), data=Digits, trainer=trainer, monitor="val/accuracy",
        dirpath=Path(dirpath, "plan"), knee={"patience": 4}, max_epochs_per_edge=longest, progress=False,
    )  # fmt: skip
    found = tuner.search()
    for step in found.path.steps:
        print(f"{step.state}: {step.epochs} epochs with {dict(step.setting)}, val/accuracy {step.value:.3f}")
    print(f"{sum(arm.epochs_run for arm in found.outcomes.values()):.0f} epochs of search")
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
