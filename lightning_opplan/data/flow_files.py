"""Optical flow on disk: a folder of pairs of pictures per video, and a list of what there is with checksums.

A folder takes its name once it is whole, and a line is written after it; a video without a line is done again.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_opplan.data.flow import Flow, quantised
from lightning_opplan.data.video_files import VideoError
from lightning_opplan.files import PARTIAL, write_json, write_text

__all__ = ["FlowFiles", "FlowSettings", "WrittenFlow", "write_pairs"]

_FORMAT: Final = 1
_QUALITY: Final = 95
_OWN: Final = re.compile(r"[xy]_\d{5,}\.jpg")


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """What all flow of a folder has in common.

    Attributes:
        method: ``"tv_l1"`` or ``"raft"``.
        short_side: Short side in px of the frames that it was found between; smaller ones as they are.
        bound: Displacement in px of the lightest grey.
    """

    method: str
    short_side: int
    bound: float


@dataclass(frozen=True, kw_only=True)
class WrittenFlow:
    """The flow of one video.

    Attributes:
        name: Its folder, below the one of all.
        num_pairs: One less than the video has frames.
        num_bytes: Size of the pictures.
        crc32: Checksum of their bytes, one after the other.
    """

    name: str
    num_pairs: int
    num_bytes: int
    crc32: int


class FlowFiles:
    """A folder of flow that is there, or is begun.

    Args:
        folder: The folder.
        settings: What the flow in it has in common.

    Attributes:
        written: The flow that there is, by name.
        is_new: Whether nothing of it has been written before.

    Raises:
        ValueError: If the folder has flow of other settings.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: FlowSettings) -> None:
        self.folder = Path(folder)
        self._head = self.folder / "flow.json"
        self._content = content = {"format": _FORMAT, **asdict(settings)}
        self.is_new = not self._head.exists()
        known = content if self.is_new else json.loads(self._head.read_text(encoding="utf-8"))
        if known != content:
            differ = [
                f"{key} {known.get(key)!r}, not {value!r}" for key, value in content.items() if known.get(key) != value
            ]
            raise ValueError(f"`flow_dir` must be a folder for this flow, got {folder} with {', '.join(differ)}.")
        self._index = self.folder / "flow.jsonl"
        self.written = {each.name: each for each in self._read()}

    def add(self, written: WrittenFlow) -> None:
        """Note that the flow of a video is there."""
        with self._index.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(written)) + "\n")
        self.written[written.name] = written

    def begin(self, names: Iterable[str]) -> None:
        """Begin to write, if the folders of some videos hold nothing but what a kill has left of their flow.

        Raises:
            ValueError: If there is anything else, which is somebody's.
        """
        for name in names:
            place = self.folder / name
            if not place.exists():
                continue
            inside = [entry.name for entry in os.scandir(place)] if place.is_dir() else [place.name]
            foreign = inside if self.is_new else [each for each in inside if not _OWN.fullmatch(each)]
            if foreign:
                raise ValueError(
                    f"`flow_dir` must be a folder that `opplan flow` alone writes to, got {self.folder}, where "
                    f"{name} holds {min(foreign)}. Choose another one, or delete what is there."
                )

        # Not before: from now on what is in the folder is taken for this program's.
        write_json(self._head, self._content)

    def forget(self, names: Collection[str]) -> None:
        """Take some videos off the list, so that their flow is found again."""
        self.written = {name: each for name, each in self.written.items() if name not in names}
        lines = [json.dumps(asdict(each)) + "\n" for each in self.written.values()]
        write_text(self._index, "".join(lines))

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Yield the name of each video, and whether its bytes are others than those written."""
        for name, each in self.written.items():
            yield name, (each.num_pairs, each.num_bytes, each.crc32) != _summed(self.folder / name)

    def _read(self) -> Iterator[WrittenFlow]:
        if not self._index.exists():
            return
        content = self._index.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # a kill left a line half written
            os.truncate(self._index, len(whole))
        for line in whole.splitlines():
            yield WrittenFlow(**json.loads(line))


def write_pairs(
    folder: Path, name: str, frames: Iterator[NDArray[np.uint8]], flow: Callable[..., Flow], bound: float
) -> WrittenFlow:
    """Write the flow between neighbouring frames as ``x_00001.jpg``, ``y_00001.jpg`` and so on.

    Args:
        folder: Folder of all flow.
        name: Folder of this video's below it.
        frames: Frames ``(H, W, 3)``, uint8, in order.
        flow: Finds the flow between two.
        bound: Displacement in px of the lightest grey.

    Raises:
        VideoError: If there are not two frames, or they change their size.
    """
    target = folder / name
    partial = target.with_name(target.name + PARTIAL)
    for old in (partial, target):
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    for number, (frame, following) in enumerate(pairwise(frames), start=1):
        if frame.shape != following.shape:
            shutil.rmtree(partial)
            raise VideoError(str(target), "the frames change their size")
        for axis, grey in zip("xy", quantised(flow(frame, following), bound), strict=True):
            Image.fromarray(grey).save(partial / f"{axis}_{number:05d}.jpg", quality=_QUALITY)
    num_pairs, num_bytes, crc32 = _summed(partial)
    if not num_pairs:
        partial.rmdir()
        raise VideoError(str(target), "the video has one frame, and no flow")
    os.replace(partial, target)
    return WrittenFlow(name=name, num_pairs=num_pairs, num_bytes=num_bytes, crc32=crc32)


def _summed(folder: Path) -> tuple[int, int, int]:
    """Number of pairs, bytes, and checksum of the pictures of a folder."""
    files = sorted(folder.glob("[xy]_*.jpg"))
    num_bytes = crc32 = 0
    for file in files:
        content = file.read_bytes()
        num_bytes += len(content)
        crc32 = zlib.crc32(content, crc32)
    return len(files) // 2, num_bytes, crc32
