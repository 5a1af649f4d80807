"""Small data sets that are kept whole in memory, and a data module that yields ready batches of them."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

Part = Literal["train", "validation", "all", "test"]
CACHE = Path(tempfile.gettempdir()) / "opplan-peers"
"""MNIST-1D takes some seconds to draw, so it is drawn once for each seed."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Samples of the training and the validation part; what is left is the test part."""

    train: int
    validation: int

    def bounds(self, part: Part) -> slice:
        both = self.train + self.validation
        starts = {"train": (0, self.train), "all": (0, both), "validation": (self.train, both), "test": (both, None)}
        return slice(*starts[part])


def mnist1d(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset

    file = CACHE / f"mnist1d-{seed}.npz"
    if not file.exists():
        options = get_dataset_args()
        options.num_samples, options.seed = 7500, 10_000 + seed
        drawn = make_dataset(options)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=CACHE, suffix=".npz", delete=False) as stream:
            np.savez(stream, x=np.vstack([drawn["x"], drawn["x_test"]]), y=np.hstack([drawn["y"], drawn["y_test"]]))
        Path(stream.name).replace(file)
    with np.load(file) as saved:
        return saved["x"][:, None], saved["y"]


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return (images / 16.0 - 0.3).reshape(-1, 1, 8, 8)[order], labels[order]


def tabular(seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import make_classification

    return make_classification(
        n_samples=7800, n_features=40, n_informative=12, n_redundant=6, n_classes=6, n_clusters_per_class=3,
        class_sep=1.4, flip_y=0.02, shift=0.0, random_state=seed,
    )  # fmt: skip


def noisy(x: Tensor, strength: float) -> Tensor:
    return torch.randn_like(x).mul_(strength).add_(x)


def shifted(images: Tensor, strength: float) -> Tensor:
    """Each image moved by up to `strength` px in both directions, and some noise."""
    reach = int(strength)
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (reach,) * 4, value=-0.3)[:, 0]
    rows, columns = torch.randint(2 * reach + 1, (2, count, 1, 1))
    rows = rows + torch.arange(height)[:, None]
    columns = columns + torch.arange(width)
    moved = padded[torch.arange(count)[:, None, None], rows, columns]
    return noisy(moved[:, None], 0.1 * strength)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set, how it is divided, and what augmentation does to a whole epoch of it."""

    draw: Callable[[int], tuple[np.ndarray, np.ndarray]]
    sizes: Sizes
    augment: Callable[[Tensor, float], Tensor] | None = None


SOURCES = {
    "mnist1d": Source(draw=mnist1d, sizes=Sizes(train=1000, validation=500)),
    "digits": Source(draw=digits, sizes=Sizes(train=200, validation=300), augment=shifted),
    "tabular": Source(draw=tabular, sizes=Sizes(train=1200, validation=600), augment=noisy),
}


@cache
def drawn(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """The samples of a seed and their labels, scaled where the source does not."""
    x, y = SOURCES[name].draw(seed)
    scaled = x if name == "digits" else (x - x.mean()) / x.std()
    return torch.tensor(scaled, dtype=torch.float32), torch.tensor(y, dtype=torch.long)


class Batches:
    """An epoch: all samples in a new order, augmented at once, and cut into batches of nearly equal size."""

    def __init__(self, x: Tensor, y: Tensor, size: int, augment: Callable[[Tensor], Tensor]) -> None:
        self.x, self.y, self.augment = x, y, augment
        self.count = max(round(len(y) / size), 1)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.y))
        x, y = self.augment(self.x[order]), self.y[order]
        return iter(list(zip(x.tensor_split(self.count), y.tensor_split(self.count), strict=True)))


class Whole:
    """All samples as one batch."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.batch = x, y

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([self.batch])


class TensorData(LightningDataModule):
    """One of `SOURCES`; validation and test are a single batch each."""

    def __init__(
        self, source: str, *, seed: int, batch_size: int = 50, augmentation: float = 0.0, part: Part = "train"
    ) -> None:
        super().__init__()
        self.source, self.seed, self.part = source, seed, part
        self.batch_size, self.augmentation = batch_size, augmentation

    def _part(self, part: Part) -> tuple[Tensor, Tensor]:
        x, y = drawn(self.source, self.seed)
        bounds = SOURCES[self.source].sizes.bounds(part)
        return x[bounds], y[bounds]

    def _augmented(self, x: Tensor) -> Tensor:
        augment = SOURCES[self.source].augment
        return augment(x, self.augmentation) if augment is not None and self.augmentation > 0 else x

    def train_dataloader(self) -> Any:
        return Batches(*self._part(self.part), self.batch_size, self._augmented)

    def val_dataloader(self) -> Any:
        return Whole(*self._part("validation"))

    def test_dataloader(self) -> Any:
        return Whole(*self._part("test"))
