"""A module that logs a script of values, a little data, and a curve with a known peak."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PROJECT = Path(__file__).parent.parent.parent


class Scripted(LightningModule):
    """Logs a given value per validation, and trains a single weight."""

    def __init__(self, values: Sequence[float], metric: str = "val/acc", lr: float = 0.1) -> None:
        super().__init__()
        self.values, self.metric, self.lr = list(values), metric, lr
        self.layer = nn.Linear(1, 1)
        self.register_buffer("validations", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            self.log(self.metric, 1e9)
            return
        index = int(self.validations)
        self.log(self.metric, float(self.values[min(index, len(self.values) - 1)]))
        if self.trainer.state.fn == "fit":
            self.validations += 1

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


class Points(LightningDataModule):
    """Eight training points in four batches, and two for validation."""

    def __init__(self, batch_size: int = 2) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.arange(8.0)[:, None]), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.zeros(2, 1)), 2)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader()


def quiet_trainer(folder: Path, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder),
        "max_epochs": 100,
    }
    return Trainer(**{**defaults, **options})


def rise_and_fall(peak: int, length: int = 100) -> list[float]:
    """A curve of the exponential family without noise whose best epoch is `peak`; index 0 is epoch 1."""
    rate, quadratic = 0.25, -0.0002
    # f'(t) = amplitude·rate·e^(-rate·t) + 2·quadratic·t is zero at the peak
    amplitude = -2 * quadratic * peak / (rate * np.exp(-rate * peak))
    amplitude = min(amplitude, 1.0)
    slope = -2 * quadratic * peak - amplitude * rate * np.exp(-rate * peak)
    epochs = np.arange(1, length + 1)
    return (0.5 - amplitude * np.exp(-rate * epochs) + slope * epochs + quadratic * epochs**2).tolist()
