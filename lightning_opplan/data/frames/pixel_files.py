"""Decoded frames on disk, mapped into memory: for machines that read faster than they decode.

A folder with the pixels of all videos one after the other in some large files, and one line of JSON per video that
says where its frames are. A line is written once its pixels are; pixels without a line are written again.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from lightning_opplan.data.flow import Modality
from lightning_opplan.data.video_files import Pictures, VideoError
from lightning_opplan.files import write_json

__all__ = ["CachedVideo", "PixelCache", "write_pixels"]

_FORMAT: Final = 1
_SHARD_BYTES: Final = 16 * 2**30


@dataclass(frozen=True, kw_only=True)
class CachedVideo:
    """Where the frames of one video are, and their checksum.

    Attributes:
        name: What its list calls the video.
        shard: Number of the file of pixels.
        offset: First byte in it.
        shape: ``(T, H, W, C)``, uint8.
        crc32: Checksum of the bytes.
    """

    name: str
    shard: int
    offset: int
    shape: tuple[int, int, int, int]
    crc32: int

    @property
    def num_bytes(self) -> int:
        """Size of the pixels."""
        return int(np.prod(self.shape))


class PixelCache:
    """The frames of a folder that `write_pixels` wrote.

    Args:
        folder: The folder.

    Attributes:
        short_side: Short side of all frames in px.
        modality: What they hold.
        videos: What there is, by name.

    Raises:
        FileNotFoundError: If it is no such folder.
        ValueError: If it was written by another version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        head = self.folder / "cache.json"
        if not head.is_file():
            raise FileNotFoundError(
                f"`cache_dir` must be a folder of decoded frames, got {str(folder)!r}: write it with `opplan cache`."
            )
        settings = json.loads(head.read_text())
        if settings["format"] != _FORMAT:
            raise ValueError(
                f"`cache_dir` must be written by this version, got {str(folder)!r} in format {settings['format']!r}. "
                "Delete it and run `opplan cache` again."
            )
        self.short_side: int = settings["short_side"]
        self.modality: Modality | None = settings.get("modality")  # folders of earlier versions do not say it
        self.videos: dict[str, CachedVideo] = {video.name: video for video in _lines(self.folder / "index.jsonl")}
        self._shards: dict[int, np.memmap[Any, np.dtype[np.uint8]]] = {}

    def check(self, modality: Modality) -> None:
        """Refuse to be used for another modality: flow has the names of the videos that it was found in.

        Raises:
            ValueError: If it is another one.
        """
        if self.modality is not None and modality != self.modality:
            raise ValueError(
                f"`cache_dir` must be a folder for {modality}, got {str(self.folder)!r} with {self.modality}. Choose "
                "another one."
            )

    def pixels(self, name: str) -> Pictures | None:
        """Return all frames of a video ``(N, H, W, C)``, uint8, as a view of the file; `None` if it is not here.

        Raises:
            VideoError: If the file of pixels is too short.
        """
        video = self.videos.get(name)
        if video is None:
            return None
        if video.shard not in self._shards:
            self._shards[video.shard] = np.memmap(_shard(self.folder, video.shard), np.uint8, mode="r")
        part = self._shards[video.shard][video.offset : video.offset + video.num_bytes]
        if len(part) < video.num_bytes:
            raise VideoError(str(_shard(self.folder, video.shard)), "it is shorter than it was: run `opplan cache`")
        return part.reshape(video.shape)

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Yield the name of each video, and whether its bytes are others than those written."""
        for name, video in self.videos.items():
            try:
                frames = self.pixels(name)
            except (VideoError, OSError, ValueError):
                yield name, True
                continue
            assert frames is not None
            yield name, zlib.crc32(frames.data) != video.crc32

    @classmethod
    def begin(cls, folder: str | os.PathLike[str], *, short_side: int, modality: Modality = "rgb") -> "PixelCache":
        """Open a folder to write to, made if it is not there.

        Raises:
            ValueError: If the folder has frames of another size or modality.
        """
        folder = Path(folder)
        head = folder / "cache.json"
        if not head.exists():
            write_json(head, {"format": _FORMAT, "short_side": short_side, "modality": modality})
        cache = cls(folder)
        cache.check(modality)
        if cache.short_side != short_side:
            raise ValueError(
                f"`short_side` must be that of the frames in {folder} ({cache.short_side}), got {short_side}. "
                "Choose another `cache_dir`, or delete this one."
            )
        return cache

    @classmethod
    def opened(cls, folder: str) -> "PixelCache":
        """Return the cache of a folder, opened once in this process unless it has grown."""
        index = os.path.join(folder, "index.jsonl")
        return _opened(folder, os.path.getsize(index) if os.path.exists(index) else 0)


def write_pixels(
    folder: str | os.PathLike[str],
    videos: Mapping[str, Callable[[], Tensor]],
    *,
    short_side: int,
    modality: Modality = "rgb",
    num_threads: int = 1,
) -> Iterator[tuple[str, VideoError | None]]:
    """Write the frames of videos that the folder does not have yet.

    Args:
        folder: The folder; made if it is not there.
        videos: Functions that decode all frames ``(T, C, H, W)`` at the short side, by name.
        short_side: Short side in px.
        modality: What they hold.
        num_threads: Videos to decode at a time.

    Yields:
        The name of each video that was written or, with the error, left out.

    Raises:
        ValueError: If the folder has frames of another size.
        BlockingIOError: If another process writes to it.
    """
    folder = Path(folder)
    PixelCache.begin(folder, short_side=short_side, modality=modality)
    try:
        held = FileLock(folder / "lock", thread_local=False).acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"`cache_dir` must have one writer at a time, got {folder}, which has one.") from None
    with held:
        yield from _write(folder, videos, num_threads)


def _write(
    folder: Path, videos: Mapping[str, Callable[[], Tensor]], num_threads: int
) -> Iterator[tuple[str, VideoError | None]]:
    known = PixelCache(folder)
    index = folder / "index.jsonl"
    _drop_torn_line(index)
    last = max(known.videos.values(), key=lambda video: (video.shard, video.offset), default=None)
    shard, offset = (last.shard, last.offset + last.num_bytes) if last else (0, 0)
    todo = ((name, decode) for name, decode in videos.items() if name not in known.videos)
    for name, frames in _decoded(todo, num_threads):
        if isinstance(frames, VideoError):
            yield name, frames
            continue
        pixels = frames.permute(0, 2, 3, 1).contiguous().numpy()
        data = pixels.data
        if offset and offset + data.nbytes > _SHARD_BYTES:
            shard, offset = shard + 1, 0
        file = _shard(folder, shard)
        file.touch()
        with file.open("r+b") as stream:
            stream.truncate(offset)
            stream.seek(offset)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        video = CachedVideo(name=name, shard=shard, offset=offset, shape=pixels.shape, crc32=zlib.crc32(data))
        with index.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(video)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        offset += data.nbytes
        yield name, None


def _decoded(
    videos: Iterable[tuple[str, Callable[[], Tensor]]], num_threads: int
) -> Iterator[tuple[str, Tensor | VideoError]]:
    """Decode in parallel, in order, and no more ahead than there are threads."""

    def attempt(decode: Callable[[], Tensor]) -> Tensor | VideoError:
        try:
            return decode()
        except VideoError as error:
            return error

    with ThreadPoolExecutor(num_threads) as pool:
        videos = iter(videos)
        waiting = [(name, pool.submit(attempt, decode)) for name, decode in islice(videos, num_threads + 1)]
        while waiting:
            name, future = waiting.pop(0)
            yield name, future.result()
            waiting += [(name, pool.submit(attempt, decode)) for name, decode in islice(videos, 1)]


@lru_cache(maxsize=8)
def _opened(folder: str, index_bytes: int) -> PixelCache:  # noqa: ARG001 - part of the key
    return PixelCache(folder)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"pixels-{number:03d}.bin"


def _lines(file: Path) -> Iterator[CachedVideo]:
    if not file.exists():
        return
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):  # the last one may be torn
                fields = json.loads(line)
                yield CachedVideo(**{**fields, "shape": tuple(fields["shape"])})


def _drop_torn_line(file: Path) -> None:
    with suppress(FileNotFoundError), file.open("r+b") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
