"""What a network wants to be fed: a value that models give and data take, which know nothing of each other."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Interpolation", "Preprocessing", "Shape", "described"]

Shape = tuple[int, ...]
"""Of one input: ``(C, T, H, W)`` of a clip, ``(C, H, W)`` of an image."""

Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network was made for, or its weights were trained with.

    Attributes:
        mean: Of every channel, of values from 0 to 1.
        std: The same for the standard deviation.
        crop_size: Side in px of what it sees.
        short_side: Short side in px that images or frames are scaled to before the crop.
        clip_length: Frames of a clip; ``None`` for images.
        interpolation: How images are scaled.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_size: int
    short_side: int
    clip_length: int | None = None
    interpolation: Interpolation = "bilinear"


def described(shape: Shape) -> str:
    """Say what a shape is.

    Example:
        >>> described((3, 16, 224, 224)), described((3, 160, 160))
        ('16 frames of 224 px', '160 px')
    """
    height, width = shape[-2:]
    size = f"{height} px" if height == width else f"{height} × {width} px"
    return f"{shape[1]} frames of {size}" if len(shape) == 4 else size
