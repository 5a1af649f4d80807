"""Augmentation with torchvision, on whole clips: one random draw for all frames."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "augment", "centre_crop", "normalise", "resize_short_side", "three_crops"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


def augment(frames: Tensor, *, short_side: tuple[int, int], crop_size: int, flip: bool) -> Tensor:
    """Resize the short side at random, crop at random, and flip with probability one half.

    Args:
        frames: ``(T, C, H, W)``.
        short_side: Smallest and largest short side in px, both included.
        crop_size: Side of the crop in px.
        flip: Whether to flip at all: not where left and right matter to the class.

    Returns:
        ``(T, C, crop_size, crop_size)``.

    References:
        Section 5.2: short side in [256, 340], crops of 224, no flips for Something-Something.
    """
    side = int(torch.randint(short_side[0], short_side[1] + 1, ()))
    frames = v2.RandomCrop(crop_size)(resize_short_side(frames, side))
    if flip:
        frames = v2.RandomHorizontalFlip(0.5)(frames)
    return frames


def resize_short_side(frames: Tensor, short_side: int) -> Tensor:
    """Scale frames ``(T, C, H, W)`` to a short side in px, keeping their shape; as they are if they have it."""
    if min(frames.shape[-2:]) == short_side:
        return frames
    resized: Tensor = functional.resize(frames, [short_side], antialias=True)
    return resized


def centre_crop(frames: Tensor, *, short_side: int, crop_size: int) -> Tensor:
    """Scale to a short side and take the middle: ``(T, C, crop_size, crop_size)``."""
    cropped: Tensor = functional.center_crop(resize_short_side(frames, short_side), [crop_size])
    return cropped


def three_crops(frames: Tensor, *, short_side: int, crop_size: int) -> list[Tensor]:
    """Take three crops along the longer side: its beginning, its middle and its end.

    Args:
        frames: ``(T, C, H, W)``.
        short_side: Short side in px to scale to first, at least `crop_size`.
        crop_size: Side of the crops in px.

    Returns:
        Three tensors ``(T, C, crop_size, crop_size)``.

    References:
        Section 5.2: three crops of 256 px at a short side of 256.
    """
    frames = resize_short_side(frames, short_side)
    height, width = frames.shape[-2:]
    crops = []
    for step in range(3):
        top = (height - crop_size) * (step if height > width else 1) // 2
        left = (width - crop_size) * (step if width >= height else 1) // 2
        crops.append(frames[..., top : top + crop_size, left : left + crop_size])
    return crops


def normalise(frames: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """Turn frames ``(T, C, H, W)`` of uint8 into a clip ``(C, T, H, W)`` of normalised floats."""
    scaled: Tensor = functional.normalize(
        functional.to_dtype(frames, torch.float32, scale=True), list(mean), list(std)
    )
    return scaled.transpose(0, 1).contiguous()
