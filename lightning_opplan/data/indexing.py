"""Which frames a video file has, and whether it is whole."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from lightning_opplan.data.video_files import Times, VideoError, opened, orientation_of, packets_of

__all__ = ["FrameIndex", "build_index"]

_ONE_FRAME_A_PACKET: Final = {
    "mov,mp4,m4a,3gp,3g2,mj2": {"h264", "hevc", "av1", "vp9", "mpeg4"},
    "matroska,webm": {"h264", "hevc", "av1", "vp9"},
}
"""Codecs by container whose packets tell of their frames without decoding. VP8 hides frames in packets of their own,
and AVI gives packets of MPEG-4 the timestamps of decoding."""

_WHOLE: Final = 0.9
"""Share of what a header promises that a whole file has at least: sound may be longer, and counts are rounded."""

_LENGTHS: Final = (188, 192, 204)
"""Bytes of a packet of a transport stream: as it is, with times, with a correction of errors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameIndex:
    """What has to be known of a file to decode any of its frames.

    Attributes:
        num_frames: Frames that the decoder gives out.
        height: Of the upright picture, in px.
        width: Of the upright picture, in px.
        times: Timestamp of each frame, strictly ascending; none where timestamps do not identify frames.
        starts: Timestamps at which decoding can start, ascending.
    """

    num_frames: int
    height: int
    width: int
    times: Times | None = None
    starts: Times | None = None


def build_index(path: str | os.PathLike[str]) -> FrameIndex:
    """Read a file once and say which frames it has: from its packets where they tell, else by decoding it.

    Raises:
        VideoError: If the file cannot be decoded, holds no frame, or frames of several sizes.
    """
    path = os.fspath(path)
    return _index_of_packets(path) or _index_of_frames(path)


def _index_of_packets(path: str) -> FrameIndex | None:
    """Index a file by its packets, decoding only the first frame; nothing if they do not tell."""
    times: list[int] = []
    starts: list[int] = []
    first: av.VideoFrame | None = None
    with opened(path) as (container, stream):
        if stream.codec_context.name not in _ONE_FRAME_A_PACKET.get(container.format.name, ()):
            return None
        for packet in packets_of(container, stream):
            if packet.size:
                if packet.pts is None or packet.is_corrupt:
                    return None
                if not packet.is_discard:
                    times.append(packet.pts)
                if packet.is_keyframe:
                    starts.append(packet.pts)
            if first is None:
                first = next(iter(packet.decode()), None)
        _check_length(path, container, stream, times)
    ascending = np.array(sorted(times), np.int64)
    if first is None or first.pts is None or first.pts != ascending[0] or (np.diff(ascending) <= 0).any():
        return None
    return _index(first, len(ascending), ascending, starts)


def _index_of_frames(path: str) -> FrameIndex:
    """Index a file by decoding it."""
    times: list[int | None] = []
    starts: list[int | None] = []
    sizes: set[tuple[int, int]] = set()
    first: av.VideoFrame | None = None
    with opened(path) as (container, stream):
        for packet in packets_of(container, stream):
            if packet.size and packet.is_keyframe:
                starts.append(packet.pts)
            for frame in packet.decode():
                first = first or frame
                times.append(frame.pts)
                sizes.add((frame.height, frame.width))
        _check_length(path, container, stream, [time for time in times if time is not None])
    if first is None:
        raise VideoError(path, "no frame could be decoded")
    if len(sizes) > 1:
        raise VideoError(path, "the frames change their size")
    known = [time for time in times if time is not None]
    if len(known) == len(times) and (np.diff(known) > 0).all():
        return _index(first, len(times), np.array(known, np.int64), [time for time in starts if time is not None])
    return _index(first, len(times), None, [])


def _check_length(path: str, container: InputContainer, stream: VideoStream, times: list[int]) -> None:
    """Refuse a file that ends before what its header promises: bytes in AVI, seconds in Matroska.

    A transport stream has no header, but packets of a known length, of which the last one is whole.
    """
    name = container.format.name
    if name == "avi":
        with open(path, "rb") as file:
            # Of the first part, if there are several.
            promised_bytes = 8 + int.from_bytes(file.read(8)[4:], "little")
        if container.size and container.size + 1 < promised_bytes:
            raise VideoError(
                path, f"it ends after {container.size} of {promised_bytes} bytes that its header promises"
            )
    if name == "matroska,webm" and container.duration and stream.time_base and len(times) > 1:
        step = (max(times) - min(times)) / (len(times) - 1)
        seconds = float((max(times) + step) * stream.time_base)
        promised = container.duration / av.time_base
        if seconds < _WHOLE * promised:
            raise VideoError(path, f"it ends after {seconds:.1f} of {promised:.1f} s that its header promises")
    if name == "mpegts" and container.size and all(container.size % length for length in _LENGTHS):
        raise VideoError(path, "it ends within a packet")


def _index(frame: av.VideoFrame, num_frames: int, times: Times | None, starts: Iterable[int]) -> FrameIndex:
    height, width = frame.height, frame.width
    if orientation_of(frame).is_transposed:
        height, width = width, height
    usable = np.array(sorted(set(starts)), np.int64)
    if times is not None and not (len(usable) and usable[0] <= times[0]):
        times = None
    return FrameIndex(
        num_frames=num_frames, height=height, width=width, times=times, starts=usable if times is not None else None
    )
