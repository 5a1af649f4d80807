"""Augmentation with torchvision, on whole clips: one random draw for all frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from lightning_opplan.data.flow import Modality
from lightning_opplan.inputs import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "Augmentation",
    "centre_crop",
    "mirrored",
    "normalise",
    "resize_short_side",
    "scaled_size",
    "three_crops",
]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to all frames of a clip alike: a scale, a place and perhaps a flip.

    Attributes:
        short_side: Short side in px that frames are scaled to.
        crop_size: Side of the crop in px.
        top: Place of the crop, from 0 at the top to 1 at the bottom.
        left: Place of the crop, from 0 at the left to 1 at the right.
        flip: Whether to mirror.
        modality: What the frames are: of optical flow, what goes to the right goes to the left in the mirror.

    References:
        Section 5.2: short side in [256, 340], crops of 224, no flips for Something-Something.
    """

    short_side: int
    crop_size: int
    top: float
    left: float
    flip: bool
    modality: Modality = "rgb"

    @classmethod
    def draw(
        cls,
        *,
        short_side: tuple[int, int],
        crop_size: int,
        flip: bool,
        modality: Modality = "rgb",
        generator: torch.Generator | None = None,
    ) -> "Augmentation":
        """Draw one at random.

        Args:
            short_side: Smallest and largest short side in px, both included.
            crop_size: Side of the crop in px.
            flip: Whether to flip at all, with probability one half: not where left and right matter to the class.
            modality: What the frames are.
            generator: Where the draws come from.
        """
        side = int(torch.randint(short_side[0], short_side[1] + 1, (), generator=generator))
        top, left, coin = torch.rand(3, generator=generator).tolist()
        is_flipped = flip and coin < 0.5
        return cls(short_side=side, crop_size=crop_size, top=top, left=left, flip=is_flipped, modality=modality)

    def __call__(self, frames: Tensor) -> Tensor:
        """Crop, scale and flip frames ``(T, C, H, W)`` of any size: ``(T, C, crop_size, crop_size)``."""
        rows, columns = self.box(*frames.shape[-2:])
        return self.resize(frames[..., rows, columns])

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of the crop in frames of this size: to crop first and scale then costs less."""
        side = round(self.crop_size * min(height, width) / self.short_side)
        top, left = round(self.top * (height - side)), round(self.left * (width - side))
        return slice(top, top + side), slice(left, left + side)

    def resize(self, squares: Tensor) -> Tensor:
        """Scale squares to the crop's size, and flip them."""
        if squares.shape[-1] != self.crop_size:
            squares = functional.resize(squares, [self.crop_size, self.crop_size], antialias=True)
        return mirrored(squares, self.modality) if self.flip else squares


def mirrored(frames: Tensor, modality: Modality = "rgb") -> Tensor:
    """Mirror frames ``(T, C, H, W)``, uint8; optical flow to the right becomes flow to the left."""
    flipped: Tensor = functional.horizontal_flip(frames)
    if modality == "flow":
        flipped[:, 0] = 255 - flipped[:, 0]
    return flipped


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width in px at a short side, rounded as torchvision's `Resize` does."""
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


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
    # Type and layout change in one pass; the rest happens in place, a channel at a time: broadcasting is slower.
    clip = frames.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    for channel, offset, scale in zip(clip, mean, std, strict=True):
        channel.sub_(255 * offset).mul_(1 / (255 * scale))
    return clip
