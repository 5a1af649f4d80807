"""The data module for image classification."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, v2
from typing_extensions import override

from lightning_opplan.data.lists import Split, first_names
from lightning_opplan.data.splits import internal_split, warn_of_large
from lightning_opplan.inputs import Preprocessing, Shape

__all__ = ["ImageDataModule"]

Loader = DataLoader[tuple[Tensor, int]]
Pictures = Dataset[Any]
"""Pictures of PIL with their labels."""
Transform = Callable[[Any], Any]
"""Makes an image ``(3, H, W)`` of a picture."""

_FOLDERS: Final[dict[Split, tuple[str, ...]]] = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
_OF_IMAGENET: Final = Preprocessing(crop_size=224, short_side=256)


class ImageDataModule(LightningDataModule):
    """Images in a folder per class: ``<class>/<image>``, or ``<train|val|test>/<class>/<image>``.

    Batches are ``(images, labels)`` with images ``(B, 3, H, W)``. Training takes random crops of random sizes,
    validation and test the middle.

    Args:
        root: The folder.
        crop_size: Side in px of the crops in training; by default what the network was made for, else 224.
        eval_crop_size: Side in px in validation and test, the same for every state of a plan. By default what the
            network was made for, whatever `crop_size` is.
        scale: Smallest and largest part of an image's area that a training crop shows.
        flip: Flip half of the training images; not where left and right matter to a class.
        mean: Of every channel, of values from 0 to 1; by default what the network was made for, else ImageNet's.
        std: The same for the standard deviation.
        batch_size: Training images per step and device.
        eval_batch_size: Images per step and device in validation and test. By default `batch_size`.
        num_workers: Processes that load images.
        val_size: Images to cut from the training set for validation, if there is no folder for it: a count, or a share
            below 1. By default as many as the test set has, or a fifth if there is none.
        split_seed: Seed of that split.
        train_on_validation: Train on the validation images, too: for the final model along a finished path.

    Attributes:
        classes: Names of the classes, after ``setup``.
        images: The images of every split as torchvision lists them, after ``setup``.

    Raises:
        FileNotFoundError: If there is no such folder, or a class has no image.
        ValueError: If an argument is out of range, or the splits have different classes.
    """

    def __init__(
        self,
        root: str,
        *,
        crop_size: int | None = None,
        eval_crop_size: int | None = None,
        scale: tuple[float, float] = (0.35, 1.0),
        flip: bool = True,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        val_size: float | None = None,
        split_seed: int = 0,
        train_on_validation: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` must be a range of shares of an image's area, got {scale!r}.")
        self.root = root
        self.crop_size, self.eval_crop_size, self.scale, self.flip = crop_size, eval_crop_size, scale, flip
        self.mean, self.std = mean, std
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.num_workers, self.val_size, self.split_seed = num_workers, val_size, split_seed
        self.train_on_validation = train_on_validation
        self.network: Preprocessing = _OF_IMAGENET
        self.classes: tuple[str, ...] = ()
        self.images: dict[Split, Pictures] = {}

    def adopt(self, preprocessing: Preprocessing | None) -> None:
        """Take what a network was made for, if it says so, where nothing else was asked for."""
        self.network = preprocessing or _OF_IMAGENET

    @property
    def input_shapes(self) -> dict[str, Shape]:
        """``(3, H, W)`` of the images for training and for validation and test."""
        train, evaluation = self._sizes
        return {"training": (3, train, train), "validation": (3, evaluation, evaluation)}

    @property
    def train_transform(self) -> Transform:
        """What makes of a picture what is trained on."""
        size = self._sizes[0]
        flips = [v2.RandomHorizontalFlip()] if self.flip else []
        crop = v2.RandomResizedCrop(size, scale=self.scale, interpolation=self._interpolation)
        transform: Transform = v2.Compose([v2.ToImage(), crop, *flips, *self._normalised])
        return transform

    @property
    def eval_transform(self) -> Transform:
        """What makes of a picture what is validated and tested: the network's own, at whatever size."""
        size = self._sizes[1]
        short_side = int(size * self.network.short_side / self.network.crop_size)
        resize = v2.Resize(short_side, interpolation=self._interpolation)
        transform: Transform = v2.Compose([v2.ToImage(), resize, v2.CenterCrop(size), *self._normalised])
        return transform

    @override
    def setup(self, stage: str) -> None:
        if self.images:
            return
        root = Path(self.root)
        if not root.is_dir():
            raise FileNotFoundError(f"`root` must be the folder of the images, got {self.root!r}: no such folder.")
        found = {split: root / name for split, names in _FOLDERS.items() for name in names if (root / name).is_dir()}
        folders = {
            split: ImageFolder(str(folder), loader=_loaded) for split, folder in (found or {"train": root}).items()
        }
        first = folders.get("train") or next(iter(folders.values()))
        for split, folder in folders.items():
            if folder.classes != first.classes:
                odd = sorted(set(folder.classes) ^ set(first.classes))
                raise ValueError(
                    f"`root` must have the same classes in every split, got {odd[0]!r} not in all of them ({split})."
                )
        self.classes = tuple(first.classes)
        self.images = self._with_validation(folders, is_trained=stage == "fit")

    def _with_validation(self, folders: Mapping[Split, ImageFolder], *, is_trained: bool) -> dict[Split, Pictures]:
        """Cut the internal validation set from the training set, unless the data has one of its own."""
        splits: dict[Split, Pictures] = dict(folders)
        train, test = folders.get("train"), folders.get("test")
        if train is None:
            return splits
        if "val" not in splits:
            size = self.val_size if self.val_size is not None else (len(test) if test is not None else 0.2)
            try:
                kept, cut = internal_split(train.targets, [None] * len(train), size=size, seed=self.split_seed)
            except ValueError as error:
                why = "as many as there are for the test" if self.val_size is None else "as `val_size` says"
                raise ValueError(f"`val_size` must leave images to train on ({why}). {error}") from error
            if not self.train_on_validation:
                warn_of_large(len(cut), len(train), self.val_size, "images")
            lacking = sorted(set(range(len(train.classes))) - {train.targets[index] for index in kept})
            if lacking and is_trained and not self.train_on_validation:
                names = first_names([train.classes[label] for label in lacking])
                raise ValueError(
                    f"`root` must have a training image of every class, got none of {names} beside {len(cut)} images "
                    "for validation. Set `val_size`, or add some."
                )
            splits |= {"train": Subset(train, kept), "val": Subset(train, cut)}
        if self.train_on_validation:
            splits["train"] = ConcatDataset([splits["train"], splits["val"]])
        return splits

    @override
    def train_dataloader(self) -> Loader:
        images = _Transformed(self._split("train"), self.train_transform)
        num_devices = self.trainer.world_size if self.trainer else 1
        # A last batch of one or two images would upset the statistics of batch normalisation.
        drop_last = len(images) > num_devices * self.batch_size
        return self._loader(images, batch_size=self.batch_size, shuffle=True, drop_last=drop_last)

    @override
    def val_dataloader(self) -> Loader:
        return self._loader(_Transformed(self._split("val"), self.eval_transform), batch_size=self.eval_batch_size)

    @override
    def test_dataloader(self) -> Loader:
        return self._loader(_Transformed(self._split("test"), self.eval_transform), batch_size=self.eval_batch_size)

    @override
    def predict_dataloader(self) -> Loader:
        return self.test_dataloader()

    @property
    def _sizes(self) -> tuple[int, int]:
        default = self.network.crop_size
        return self.crop_size or default, self.eval_crop_size or default

    @property
    def _interpolation(self) -> InterpolationMode:
        return InterpolationMode(self.network.interpolation)

    @property
    def _normalised(self) -> list[Any]:
        mean, std = self.mean or self.network.mean, self.std or self.network.std
        return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std), v2.ToPureTensor()]

    def _split(self, split: Split) -> Pictures:
        if split not in self.images:
            raise ValueError(f"`root` must hold a {split} set, got {self.root!r} with {', '.join(self.images)}.")
        return self.images[split]

    def _loader(self, images: Dataset[tuple[Tensor, int]], **options: Any) -> Loader:
        return DataLoader(images, num_workers=self.num_workers, pin_memory=torch.cuda.is_available(), **options)


def _loaded(file: str) -> Image.Image:
    """A picture in RGB; one of 16 bits of grey is not cut off at 255, as Pillow has it, but scaled."""
    with Image.open(file) as picture:
        if not picture.mode.startswith("I"):
            return picture.convert("RGB")
        grey = np.asarray(picture).astype(np.float64) * (255 / 65535)
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")


class _Transformed(Dataset[tuple[Tensor, int]]):
    """Pictures and labels, the pictures transformed."""

    def __init__(self, pictures: Any, transform: Transform) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        image: Tensor = self.transform(picture)
        return image, label
