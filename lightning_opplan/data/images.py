"""Videos as folders of pictures, one file per frame, as Something-Something V1 comes."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_opplan.data.deadline import progress
from lightning_opplan.data.decoding import FrameIndex, VideoError

__all__ = ["index_pictures", "read_pictures"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def index_pictures(folder: str) -> FrameIndex:
    """Count the pictures of a folder, and take the first one's size for that of all.

    Raises:
        VideoError: If there is none, or the first one cannot be read.
    """
    files = _files(folder, os.stat(folder).st_mtime_ns)
    if not files:
        raise VideoError(folder, "there is no picture in the folder")
    gap = _first_gap([os.path.basename(file) for file in files])
    if gap is not None:
        raise VideoError(folder, f"picture {gap} is missing")
    _, height, width = _picture(files[0]).shape
    return FrameIndex(num_frames=len(files), height=height, width=width)


def read_pictures(folder: str, indices: Sequence[int]) -> Tensor:
    """Return frames ``(len(indices), C, H, W)``, uint8, RGB: the pictures of a folder in the order of their names.

    Raises:
        VideoError: If a picture is missing or cannot be read, or is of another size than the others.
    """
    files = _files(folder, os.stat(folder).st_mtime_ns)
    if max(indices) >= len(files):
        raise VideoError(folder, f"frame {max(indices)} was asked for, but there are only {len(files)}")
    pictures = {index: _picture(files[index]) for index in dict.fromkeys(indices)}
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(folder, "the frames change their size")
    return torch.stack([pictures[index] for index in indices])


@lru_cache(maxsize=256)
def _files(folder: str, mtime: int) -> tuple[str, ...]:  # noqa: ARG001 - part of the key
    names = sorted(entry.name for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in _SUFFIXES)
    return tuple(os.path.join(folder, name) for name in names)


def _first_gap(names: Sequence[str]) -> str | None:
    """The first name that a numbered series lacks; ``None`` if it has all, or is not numbered."""
    matches = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name) for name in names]
    if not all(matches) or len({(match[1], match[3]) for match in matches if match}) > 1:
        return None
    numbers = sorted(int(match[2]) for match in matches if match)
    for before, after in pairwise(numbers):
        if after > before + 1:
            first = matches[0]
            assert first is not None
            return f"{first[1]}{before + 1:0{len(first[2])}d}{first[3]}"
    return None


def _picture(file: str) -> Tensor:
    progress()
    folder, name = os.path.split(file)
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except UnidentifiedImageError:
        raise VideoError(folder, f"{name} is not a picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of them are Pillow's
        raise VideoError(folder, f"{name} cannot be read ({error})") from None
