"""What several tests share."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan.data import store

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real curves and videos; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("OPPLAN_REAL_DATA", PROJECT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data here: set OPPLAN_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_curves(real_data: Path) -> list[dict[str, Any]]:
    lines = (real_data / "curves" / "curves.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def _fresh_store(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPPLAN_CACHE", str(tmp_path_factory.mktemp("cache")))
    store.forget()
    yield
    store.forget()


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


VideoWriter = Callable[..., Path]


@pytest.fixture
def write_video() -> VideoWriter:
    """Write a lossless video whose frame number is its grey value, so that decoded frames compare exactly."""

    def write(file: Path, num_frames: int = 20, size: tuple[int, int] = (32, 24), rate: int = 25) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(file), "w") as container:
            if file.suffix == ".webm":
                stream = container.add_stream("libvpx-vp9", rate=rate, options={"lossless": "1"})
            else:
                stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0", "g": "6"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p" if file.suffix == ".webm" else "rgb24"
            for number in range(num_frames):
                picture = np.full((size[1], size[0], 3), number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        return file

    return write
