"""Decode video files with PyAV: every frame, in decode order."""

import os
from collections.abc import Collection, Iterator

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["VideoError", "count_frames", "decode_frames"]


Picture = NDArray[np.uint8]


class VideoError(RuntimeError):
    """A video that cannot be used.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def count_frames(path: str | os.PathLike[str]) -> int:
    """Count the frames of a video by decoding it; what its header says is often wrong.

    Raises:
        VideoError: If the file cannot be decoded to its end, holds no frame, or frames of several sizes.
    """
    count, sizes = 0, set()
    for frame in _frames(os.fspath(path)):
        count += 1
        sizes.add((frame.height, frame.width))
    if not count:
        raise VideoError(os.fspath(path), "no frame could be decoded")
    if len(sizes) > 1:
        raise VideoError(os.fspath(path), "the frames change their size")
    return count


def decode_frames(path: str | os.PathLike[str], indices: Collection[int] | None = None) -> Tensor:
    """Decode some frames of a video, or all.

    Args:
        path: The file.
        indices: Frame numbers from 0 in decode order; in any order, repeats allowed. By default all of them.

    Returns:
        ``(T, C, H, W)``, uint8, RGB, in the order of `indices`.

    Raises:
        VideoError: If the file cannot be decoded that far, or holds no frame.
    """
    path = os.fspath(path)
    wanted, last = (None, -1) if indices is None else (set(indices), max(indices))
    # One for all frames: to make one for each takes seven times as long as to decode a small video.
    converter = VideoReformatter()
    pictures: dict[int, Picture] = {}
    number = -1
    for number, frame in enumerate(_frames(path)):
        if wanted is None or number in wanted:
            picture = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            pictures[number] = np.rot90(picture, _quarter_turns(frame))
        if number == last:
            break
    if not pictures or number < last:
        asked = f"frame {last} was asked for, but there are only {number + 1}"
        raise VideoError(path, asked if number >= 0 else "no frame could be decoded")
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(path, "the frames change their size")
    stacked = np.stack([pictures[index] for index in (pictures if indices is None else indices)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise turns to see the frame upright; 0 where the file says something else than a right angle."""
    return frame.rotation // 90 % 4 if frame.rotation % 90 == 0 and abs(frame.rotation) <= 360 else 0


def _frames(path: str) -> Iterator[av.VideoFrame]:
    """All frames in decode order: the timestamps of old AVI files are not ascending, their frames are."""
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise VideoError(path, "there is no video stream")
            yield from container.decode(container.streams.video[0])
    except FileNotFoundError:
        raise VideoError(path, "there is no such file") from None
    except av.FFmpegError as error:
        raise VideoError(path, f"{type(error).__name__}: {error.strerror}") from error
