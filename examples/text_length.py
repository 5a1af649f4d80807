"""Text: sequence length by learning rate for a small Transformer, on the sources of Python's standard library.

It predicts the next byte. Most of what it takes stands shortly before, and short sequences cost less: begin with them?
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
LENGTH = 128  # bytes of a sequence


class Transformer(LightningModule):
    def __init__(self, learning_rate: float = 0.003) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.tokens, self.positions = nn.Embedding(128, 48), nn.Embedding(LENGTH, 48)
        self.layer = nn.TransformerEncoderLayer(48, nhead=4, dim_feedforward=96, dropout=0.0, batch_first=True)
        self.head = nn.Linear(48, 128)

    def forward(self, text: Tensor) -> Tensor:
        """Score each next byte: ``(B, L)`` to ``(B, 128, L)``."""
        length = text.shape[1]
        seen = nn.Transformer.generate_square_subsequent_mask(length, device=text.device)
        tokens = self.tokens(text) + self.positions(torch.arange(length, device=text.device))
        return self.head(self.layer(tokens, src_mask=seen, is_causal=True)).transpose(1, 2)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return functional.cross_entropy(self(batch[:, :-1]), batch[:, 1:])

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/accuracy", self.accuracy(batch), batch_size=len(batch))

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test/accuracy", self.accuracy(batch), batch_size=len(batch))

    def accuracy(self, batch: Tensor) -> Tensor:
        return (self(batch[:, :-1]).argmax(dim=1) == batch[:, 1:]).float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.learning_rate)


class Sources(LightningDataModule):
    """Of five files of a package one is for the test and one for validation; the others are trained on."""

    def __init__(self, length: int = LENGTH) -> None:
        super().__init__()
        self.length = length

    def setup(self, stage: str) -> None:
        texts = {"train": bytearray(), "val": bytearray(), "test": bytearray()}
        for package in PACKAGES:
            files = sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py"))
            for number, file in enumerate(files):
                texts[("train", "val", "train", "test", "train")[number % 5]] += file.read_bytes()
        self.text = {
            part: torch.frombuffer(text, dtype=torch.uint8).long().clamp(max=127) for part, text in texts.items()
        }

    def pieces(self, part: str, number: int) -> Tensor:
        """Sequences at equal distances, with the byte that follows the last."""
        text = self.text[part]
        starts = torch.linspace(0, len(text) - LENGTH - 1, number).long()
        return torch.stack([text[start : start + LENGTH + 1] for start in starts])

    def drawn(self, starts: list[int]) -> Tensor:
        """Sequences that begin up to a thousand bytes later than the starts, anew in every epoch."""
        later = torch.randint(1000, (len(starts),))
        begins = [start + int(shift) for start, shift in zip(starts, later, strict=True)]
        return torch.stack([self.text["train"][begin : begin + self.length + 1] for begin in begins])

    def train_dataloader(self) -> DataLoader[int]:
        starts = range(0, len(self.text["train"]) - 1000 - LENGTH, len(self.text["train"]) // 250)
        return DataLoader(starts, 20, shuffle=True, collate_fn=self.drawn)

    def val_dataloader(self) -> DataLoader[Tensor]:  # at the full length in every state
        return DataLoader(self.pieces("val", 100), 100)

    def test_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.pieces("test", 400), 100)


def trainer(**options: object) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


def main(dirpath: str = "runs/text_length", epochs: int = 80) -> None:
    space = SearchSpace(
        axes=[Axis("length", [{"data.length": length} for length in (32, 64, 128)])],
        choices={"model.learning_rate": [0.01, 0.003, 0.001]},
    )
    tuner = PathSearchTuner(
        space, model=Transformer, data=Sources, trainer=trainer, monitor="val/accuracy", dirpath=dirpath,
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
