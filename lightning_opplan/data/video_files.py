"""Open video files with PyAV, and see which way up their pictures are."""

import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lightning_opplan.data.deadline import progress

__all__ = ["Orientation", "Picture", "Pictures", "Times", "VideoError", "opened", "orientation_of", "packets_of"]

Picture = NDArray[np.uint8]
Pictures = NDArray[np.uint8]
"""Frames ``(N, H, W, C)``."""
Times = NDArray[np.int64]

_OPEN_SECONDS: Final = 60.0
"""How long opening a file and reading a packet may take each: a dead network drive must not hold a run up for ever."""


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


@contextmanager
def opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video.

    Raises:
        VideoError: If it cannot be read, or holds no video; also of what is read within.
    """
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


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator["av.Packet[VideoStream]"]:
    """Read a video packet by packet, each in time or not at all; see `deadline`."""
    for packet in container.demux(stream):
        progress()
        yield packet


class Orientation(NamedTuple):
    """What makes a frame upright: axes exchanged first, then flips."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def applied(self, picture: Picture) -> Picture:
        """Return a picture ``(H, W, C)`` upright."""
        turned = picture.swapaxes(0, 1) if self.is_transposed else picture
        return turned[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """How to see a frame upright, as the `ffmpeg` program does; as it is where the file says no right angle."""
    found: Iterable[Any] = frame.side_data  # typed as if it were a mapping
    matrix = next((data for data in found if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    if not (math.hypot(a, c) and math.hypot(b, d)):
        return Orientation()
    angle = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if angle == 90:
        return Orientation(is_transposed=True, flips_columns=c <= 0)
    if angle == 270:
        return Orientation(is_transposed=True, flips_rows=True, flips_columns=c < 0)
    if angle == 180:
        return Orientation(flips_rows=d < 0, flips_columns=a < 0)
    return Orientation(flips_rows=angle == 0 and d < 0)
