"""Decode video files with PyAV: any frames, by number, bit-equal to what the `ffmpeg` program writes.

A frame's number is its place in the order in which the decoder gives frames out. Timestamps say the same only where
they ascend from frame to frame; then `FrameIndex` holds them, and decoding starts at the nearest key frame. Whatever
comes out otherwise than the index says is decoded again from the start, by counting.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from lightning_opplan.data.indexing import FrameIndex
from lightning_opplan.data.transforms import scaled_size
from lightning_opplan.data.video_files import Picture, Times, VideoError, opened, orientation_of, packets_of

__all__ = ["decode_frames"]

_CAN_SKIP: Final = {"h264", "hevc", "mpeg4"}
"""Codecs whose decoder may be told for each packet whether to leave a frame out."""

_WORTH_SEEKING: Final = 8  # frames


class _Irregular(Exception):  # noqa: N818 - no error: it is decoded again
    """Frames came out otherwise than the index says."""


def decode_frames(
    path: str | os.PathLike[str],
    indices: Collection[int] | None = None,
    *,
    index: FrameIndex | None = None,
    short_side: int | None = None,
) -> Tensor:
    """Decode some frames of a video, or all.

    Args:
        path: The file.
        indices: Frame numbers from 0, in any order, repeats allowed. By default all of them.
        index: What `build_index` found; without it, everything up to the last wanted frame is decoded.
        short_side: Scale the frames to this short side in px, on the way from the decoder's colours to RGB.

    Returns:
        ``(T, C, H, W)``, uint8, RGB, upright, in the order of `indices`; a view of ``(T, H, W, C)``.

    Raises:
        VideoError: If the file cannot be decoded that far, or holds no frame.
    """
    path = os.fspath(path)
    wanted = None if indices is None else sorted(set(indices))
    pictures: dict[int, Picture] | None = None
    if index is not None and index.times is not None and index.starts is not None and wanted:
        for starts in (index.starts, index.starts[:1]):
            with suppress(_Irregular):
                pictures = _sought(path, wanted, index.times, starts, short_side)
                break
    if pictures is None:
        pictures = _counted(path, wanted, short_side)
    if len({picture.shape for picture in pictures.values()}) > 1:
        raise VideoError(path, "the frames change their size")
    stacked = np.stack([pictures[number] for number in (pictures if indices is None else indices)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)


def _counted(path: str, wanted: list[int] | None, short_side: int | None) -> dict[int, Picture]:
    """Decode from the start and count."""
    last = wanted[-1] if wanted else -1
    chosen = None if wanted is None else set(wanted)
    converter = _Converter(short_side)
    pictures: dict[int, Picture] = {}
    number = -1
    with opened(path) as (container, stream):
        frames = (frame for packet in packets_of(container, stream) for frame in packet.decode())
        for number, frame in enumerate(frames):
            if chosen is None or number in chosen:
                pictures[number] = converter(frame)
            if number == last:
                break
    if number < 0:
        raise VideoError(path, "no frame could be decoded")
    if number < last:
        raise VideoError(path, f"frame {last} was asked for, but there are only {number + 1}")
    return pictures


def _sought(path: str, wanted: list[int], times: Times, starts: Times, short_side: int | None) -> dict[int, Picture]:
    """Decode from the key frame before each wanted frame, leaving out what nothing wanted depends on."""
    if wanted[-1] >= len(times):
        raise VideoError(path, f"frame {wanted[-1]} was asked for, but there are only {len(times)}")
    numbers = {int(times[number]): number for number in wanted}
    converter = _Converter(short_side)
    pictures: dict[int, Picture] = {}
    with opened(path) as (container, stream):
        for start, run in _runs(times, starts, wanted):
            stop = int(times[run[-1]])
            if start > starts[0] or pictures:
                _seek(container, stream, start)
            for frame in _frames_until(container, stream, start, stop, numbers):
                if frame.pts in numbers:
                    pictures[numbers[frame.pts]] = converter(frame)
            if any(number not in pictures for number in run):
                raise _Irregular
    return pictures


def _runs(times: Times, starts: Times, wanted: list[int]) -> list[tuple[int, list[int]]]:
    """Group frame numbers by the start from which to decode them.

    A seek is not worth it for a few frames: they are decoded on the way.
    """
    runs: list[tuple[int, list[int]]] = []
    for number in wanted:
        place = int(np.searchsorted(starts, times[number], side="right")) - 1
        start = int(starts[max(place, 0)])
        skipped = int(np.searchsorted(times, start)) - runs[-1][1][-1] if runs else 0
        if runs and skipped < _WORTH_SEEKING:
            runs[-1][1].append(number)
        else:
            runs.append((start, [number]))
    return runs


def _seek(container: InputContainer, stream: VideoStream, start: int) -> None:
    try:
        container.seek(start, stream=stream, backward=True)
    except av.FFmpegError:
        raise _Irregular from None


def _frames_until(
    container: InputContainer, stream: VideoStream, start: int, stop: int, needed: Collection[int]
) -> Iterator[av.VideoFrame]:
    """Frames in ascending order from where the file stands, up to and with a timestamp; not all of the others."""
    context = stream.codec_context
    can_skip = context.name in _CAN_SKIP
    before: int | None = None
    for place, packet in enumerate(packets_of(container, stream)):
        if place == 0 and (packet.pts is None or packet.pts > start):
            raise _Irregular
        # Frames on which no other depends are not decoded unless they are wanted.
        context.skip_frame = (
            "NONREF" if can_skip and packet.pts is not None and packet.pts not in needed else "DEFAULT"
        )
        for frame in packet.decode():
            if frame.pts is None or frame.is_corrupt or (before is not None and frame.pts <= before):
                raise _Irregular
            before = frame.pts
            yield frame
            if frame.pts >= stop:
                return


class _Converter:
    """From the decoder's frames to upright RGB, by the same filters as the `ffmpeg` program takes."""

    def __init__(self, short_side: int | None) -> None:
        self.short_side = short_side
        self.graph: av.filter.Graph | None = None
        self.key: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> Picture:
        key = (frame.height, frame.width, frame.format.name)
        if self.graph is None or key != self.key:
            self.graph, self.key = self._make(frame), key
        self.graph.vpush(frame)
        picture: Any = self.graph.vpull().to_ndarray()  # of bytes, as `format` is
        return orientation_of(frame).applied(picture)

    def _make(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1  # starting threads for each frame takes longer than scaling it
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        size = None
        if self.short_side is not None:
            height, width = scaled_size(frame.height, frame.width, self.short_side)
            size = f"{width}:{height}:flags=bilinear"
        graph.link_nodes(source, graph.add("scale", size), graph.add("format", "rgb24"), graph.add("buffersink"))
        graph.configure()
        return graph
