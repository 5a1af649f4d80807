"""Decode video files with PyAV: any frames, by number, bit-equal to what the `ffmpeg` program writes.

A frame's number is its place in the order in which the decoder gives frames out. Timestamps say the same only where
they ascend from frame to frame; then `FrameIndex` holds them, and decoding starts at the nearest key frame. Whatever
comes out otherwise than the index says is decoded again from the start, by counting.
"""

import math
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from lightning_opplan.data.deadline import progress
from lightning_opplan.data.transforms import scaled_size

__all__ = ["FrameIndex", "VideoError", "build_index", "decode_frames"]

Picture = NDArray[np.uint8]
Pictures = NDArray[np.uint8]
"""Frames ``(N, H, W, C)``."""
Times = NDArray[np.int64]

_OPEN_SECONDS: Final = 60.0
"""How long opening a file and reading a packet may take each: a dead network drive must not hold a run up for ever."""

_ONE_FRAME_A_PACKET: Final = {
    "mov,mp4,m4a,3gp,3g2,mj2": {"h264", "hevc", "av1", "vp9", "mpeg4"},
    "matroska,webm": {"h264", "hevc", "av1", "vp9"},
}
"""Codecs by container whose packets tell of their frames without decoding. VP8 hides frames in packets of their own,
and AVI gives packets of MPEG-4 the timestamps of decoding."""


_CAN_SKIP: Final = {"h264", "hevc", "mpeg4"}
"""Codecs whose decoder may be told for each packet whether to leave a frame out."""

_WORTH_SEEKING: Final = 8  # frames

_WHOLE: Final = 0.9
"""Share of what a header promises that a whole file has at least: sound may be longer, and counts are rounded."""

_LENGTHS: Final = (188, 192, 204)
"""Bytes of a packet of a transport stream: as it is, with times, with a correction of errors."""


class VideoError(RuntimeError):
    """A video that cannot be used.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        if not reason:
            # A DataLoader raises the errors of its workers again with their whole traceback as the only argument.
            *_, last = path.strip().splitlines()
            path, _, reason = re.sub(r"^[\w.]*VideoError: ", "", last).partition(": ")
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


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


class _Irregular(Exception):  # noqa: N818 - no error: it is decoded again
    """Frames came out otherwise than the index says."""


def build_index(path: str | os.PathLike[str]) -> FrameIndex:
    """Read a file once and say which frames it has: from its packets where they tell, else by decoding it.

    Raises:
        VideoError: If the file cannot be decoded, holds no frame, or frames of several sizes.
    """
    path = os.fspath(path)
    return _index_of_packets(path) or _index_of_frames(path)


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
    with _opened(path) as (container, stream):
        frames = (frame for packet in _packets(container, stream) for frame in packet.decode())
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
    with _opened(path) as (container, stream):
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


def _packets(container: InputContainer, stream: VideoStream) -> Iterator["av.Packet[VideoStream]"]:
    for packet in container.demux(stream):
        progress()
        yield packet


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
    for place, packet in enumerate(_packets(container, stream)):
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
        return _orientation(frame).applied(picture)

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


def _index_of_packets(path: str) -> FrameIndex | None:
    """Index a file by its packets, decoding only the first frame; nothing if they do not tell."""
    times: list[int] = []
    starts: list[int] = []
    first: av.VideoFrame | None = None
    with _opened(path) as (container, stream):
        if stream.codec_context.name not in _ONE_FRAME_A_PACKET.get(container.format.name, ()):
            return None
        for packet in _packets(container, stream):
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
    with _opened(path) as (container, stream):
        for packet in _packets(container, stream):
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
    if _orientation(frame).is_transposed:
        height, width = width, height
    usable = np.array(sorted(set(starts)), np.int64)
    if times is not None and not (len(usable) and usable[0] <= times[0]):
        times = None
    return FrameIndex(
        num_frames=num_frames, height=height, width=width, times=times, starts=usable if times is not None else None
    )


class _Orientation(NamedTuple):
    """What makes a frame upright: axes exchanged first, then flips."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def applied(self, picture: Picture) -> Picture:
        turned = picture.swapaxes(0, 1) if self.is_transposed else picture
        return turned[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


def _orientation(frame: av.VideoFrame) -> _Orientation:
    """How to see a frame upright, as the `ffmpeg` program does; as it is where the file says no right angle."""
    found: Iterable[Any] = frame.side_data  # typed as if it were a mapping
    matrix = next((data for data in found if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return _Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    if not (math.hypot(a, c) and math.hypot(b, d)):
        return _Orientation()
    angle = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if angle == 90:
        return _Orientation(is_transposed=True, flips_columns=c <= 0)
    if angle == 270:
        return _Orientation(is_transposed=True, flips_rows=True, flips_columns=c < 0)
    if angle == 180:
        return _Orientation(flips_rows=d < 0, flips_columns=a < 0)
    return _Orientation(flips_rows=angle == 0 and d < 0)


@contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VideoError(path, "it is not a file")
        # Made absolute, no name is taken for an option or a protocol.
        with av.open(os.path.abspath(path), timeout=_OPEN_SECONDS, metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                raise VideoError(path, "there is no video stream")
            if stream.disposition & Disposition.attached_pic:
                raise VideoError(path, "there is no video stream, only the picture of a cover")
            # Loader processes decode at the same time; for the few frames of a clip more threads are no quicker.
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "SLICE"
            yield container, stream
    except FileNotFoundError:
        raise VideoError(path, "there is no such file") from None
    except av.FFmpegError as error:
        raise VideoError(path, f"{type(error).__name__}: {error.strerror}") from error
    except OSError as error:
        raise VideoError(path, error.strerror or "it cannot be read") from error
