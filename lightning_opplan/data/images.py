"""Videos as folders of pictures: one per frame, as Something-Something V1 comes, or a pair of optical flow."""

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lightning_opplan.data.deadline import progress
from lightning_opplan.data.flow import Modality
from lightning_opplan.data.indexing import FrameIndex
from lightning_opplan.data.video_files import VideoError

__all__ = ["index_pictures", "read_pictures"]

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_FLOW: Final = re.compile(r"(?:flow_?)?([xyuv])[_-]?(\d+)\.\w+", re.IGNORECASE)
"""Flow as `opplan flow`, dense_flow, TSN and mmaction2 name it: x_00001.jpg, flow_x_00001.jpg, u00001.png."""


def index_pictures(folder: str, modality: Modality = "rgb") -> FrameIndex:
    """Count the pictures of a folder, or the pairs of flow, and take the first one's size for that of all.

    Pairs of flow are never taken for frames, in whatever folder they are.

    Raises:
        VideoError: If there is none, one is missing, or the first one cannot be read.
    """
    frames = _frames(folder, modality)
    first = _frame(frames[0], modality)
    return FrameIndex(num_frames=len(frames), height=first.shape[1], width=first.shape[2])


def read_pictures(folder: str, indices: Sequence[int], modality: Modality = "rgb") -> Tensor:
    """Return frames ``(len(indices), C, H, W)``, uint8: the pictures of a folder in the order of their names.

    C is 3 for RGB. For flow it is 2: to the right, and down.

    Raises:
        VideoError: If a picture is missing or cannot be read, or is of another size than the others.
    """
    frames = _frames(folder, modality)
    if max(indices) >= len(frames):
        raise VideoError(folder, f"frame {max(indices)} was asked for, but there are only {len(frames)}")
    pictures = {index: _frame(frames[index], modality) for index in dict.fromkeys(indices)}
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(folder, "the frames change their size")
    return torch.stack([pictures[index] for index in indices])


def _frames(folder: str, modality: Modality) -> tuple[tuple[str, ...], ...]:
    """The files of every frame, one or two, or the `VideoError` that says what is wrong."""
    return _listed(folder, modality, os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=256)
def _listed(folder: str, modality: Modality, mtime: int) -> tuple[tuple[str, ...], ...]:  # noqa: ARG001 - of the key
    entries = (entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    names = _in_order(sorted(name for name in entries if Path(name).suffix.lower() in _SUFFIXES))
    right, down = _components(names)
    if modality == "flow":
        return tuple((os.path.join(folder, x), os.path.join(folder, y)) for x, y in _pairs(folder, right, down))
    if right and down:
        names = [name for name in names if name not in {*right.values(), *down.values()}]
        if not names:
            raise VideoError(
                folder, f"it holds optical flow ({next(iter(right.values()))}), no frames: set `modality` to 'flow'"
            )
    if not names:
        raise VideoError(folder, "there is no picture in the folder")
    gap = _first_gap(names)
    if gap is not None:
        raise VideoError(folder, f"picture {gap} is missing")
    return tuple((os.path.join(folder, name),) for name in names)


def _components(names: Sequence[str]) -> tuple[Mapping[int, str], Mapping[int, str]]:
    """The pictures of flow to the right and down, by number."""
    right: dict[int, str] = {}
    down: dict[int, str] = {}
    for name in names:
        match = _FLOW.fullmatch(name)
        if match is not None:
            (right if match[1].lower() in "xu" else down)[int(match[2])] = name
    return right, down


def _pairs(folder: str, right: Mapping[int, str], down: Mapping[int, str]) -> list[tuple[str, str]]:
    if not right or not down:
        raise VideoError(folder, "there are no pairs of optical flow (x_00001.jpg, y_00001.jpg) in the folder")
    for one, other in ((right, down), (down, right)):
        lonely = sorted(set(one) - set(other))
        if lonely:
            raise VideoError(folder, f"picture {one[lonely[0]]} has no partner")
    gap = _first_gap(sorted(right.values()))
    if gap is not None:
        raise VideoError(folder, f"picture {gap} is missing")
    return [(right[number], down[number]) for number in sorted(right)]


def _numbers(names: Sequence[str]) -> list[re.Match[str]]:
    """The beginning, number and end of every name of a numbered series; none if it is not one."""
    matches = [match for name in names if (match := re.fullmatch(r"(.*?)(\d+)(\.\w+)", name))]
    is_series = len(matches) == len(names) and len({(match[1], match[3]) for match in matches}) == 1
    return matches if is_series else []


def _in_order(names: Sequence[str]) -> list[str]:
    """By number where that is what names differ in: frame2 comes before frame10."""
    matches = _numbers(names)
    return [match[0] for match in sorted(matches, key=lambda match: int(match[2]))] if matches else list(names)


def _first_gap(names: Sequence[str]) -> str | None:
    """The first name that a numbered series lacks; ``None`` if it has all, or is not numbered."""
    matches = _numbers(names)
    for before, after in pairwise(sorted(int(match[2]) for match in matches)):
        if after > before + 1:
            return f"{matches[0][1]}{before + 1:0{len(matches[0][2])}d}{matches[0][3]}"
    return None


def _frame(files: Sequence[str], modality: Modality) -> Tensor:
    """A frame ``(C, H, W)``, uint8."""
    if modality == "rgb":
        return _picture(files[0], "RGB").permute(2, 0, 1)
    right, down = (_picture(file, "L") for file in files)
    if right.shape != down.shape:
        folder, name = os.path.split(files[1])
        raise VideoError(folder, f"{name} is of another size than its partner")
    return torch.stack([right, down])


def _picture(file: str, mode: str) -> Tensor:
    progress()
    folder, name = os.path.split(file)
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert(mode)))
    except UnidentifiedImageError:
        raise VideoError(folder, f"{name} is not a picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all of them are Pillow's
        raise VideoError(folder, f"{name} cannot be read ({error})") from None
