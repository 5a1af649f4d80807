"""Text: sequence length by learning rate for a small Transformer, on the sources of Python's standard library.

Which package is a piece of code from? A short piece says less of it, but attention over a quarter of the bytes is
much cheaper.
"""

import sysconfig
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from lightning_opplan import Axis, PathSearchTuner, SearchSpace, score_ensemble

PACKAGES = ("asyncio", "ctypes", "email", "multiprocessing", "unittest", "xml")
LENGTH = 128  # bytes of a piece
TRAIN, VAL, TEST = (80, 60, 100)  # pieces of each package


class Classifier(LightningModule):
    def __init__(self, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.tokens, self.positions = nn.Embedding(128, 32), nn.Embedding(LENGTH, 32)
        self.layer = nn.TransformerEncoderLayer(32, nhead=2, dim_feedforward=64, dropout=0.1, batch_first=True)
        self.head = nn.Linear(32, len(PACKAGES))

    def forward(self, text: Tensor) -> Tensor:
        places = torch.arange(text.shape[1], device=text.device)
        return self.head(self.layer(self.tokens(text) + self.positions(places)).mean(dim=1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/accuracy", self.accuracy(batch), batch_size=len(batch[1]))

    def accuracy(self, batch: list[Tensor]) -> Tensor:
        return (self(batch[0]).argmax(dim=1) == batch[1]).float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=0.01)


class Sources(LightningDataModule):
    def __init__(self, length: int = LENGTH) -> None:
        super().__init__()
        self.length = length

    def setup(self, stage: str) -> None:
        """Of five files of a package one is for the test, one for validation: no file has pieces in two parts."""
        pieces = {"train": [], "val": [], "test": []}
        generator = torch.Generator().manual_seed(0)
        for label, package in enumerate(PACKAGES):
            files = sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py"), key=lambda file: file.name)
            texts = {"train": b"", "val": b"", "test": b""}
            for number, file in enumerate(file for file in files if "test" not in file.parts):
                texts[("test", "train", "val", "train", "train")[number % 5]] += file.read_bytes()
            for part, count in ("train", TRAIN), ("val", VAL), ("test", TEST):
                text = torch.frombuffer(bytearray(texts[part]), dtype=torch.uint8).long().clamp(max=127)
                starts = torch.randint(len(text) - LENGTH, (count,), generator=generator)
                pieces[part] += [(text[start : start + LENGTH], torch.tensor(label)) for start in starts]
        self.train, self.val, self.test = pieces["train"], pieces["val"], pieces["test"]

    def shorter(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        text, labels = map(torch.stack, zip(*samples, strict=True))
        start = int(torch.randint(LENGTH - self.length + 1, ()))
        return text[:, start : start + self.length], labels

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, 32, shuffle=True, collate_fn=self.shorter)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:  # at the full length in every state
        return DataLoader(self.val, 360)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.test, 600)


def trainer(**options: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


def main(dirpath: str = "runs/text_length", epochs: int = 120) -> None:
    space = SearchSpace(
        axes=[Axis("length", [{"data.length": length} for length in (32, 64, 128)])],
        choices={"model.learning_rate": [0.01, 0.003, 0.001]},
    )
    tuner = PathSearchTuner(
        space, model=Classifier, data=Sources, trainer=trainer, monitor="val/accuracy", dirpath=dirpath,
        budget={"epochs": epochs}, progress=False,
    )  # fmt: skip
    found = tuner.search()
    print(f"Chosen: {dict(found.path.steps[-1].setting)}")
    for length in (32, 64, 128):
        states = tuner.spec.graph.settings
        arms = [arm for arm in found.outcomes.values() if states[arm.edge.child]["data.length"] == length]
        seconds = sum(arm.seconds - arm.start_seconds for arm in arms) / sum(arm.epochs_run for arm in arms)
        best = max(arm.value for arm in arms if arm.value is not None)
        print(f"length {length}: val/accuracy {best:.3f} at best, {seconds:.2f} s an epoch")
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
