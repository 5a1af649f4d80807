"""What is known of the videos of this process: their frames' indices, and their pixels if there is room."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from torch import Tensor
from tqdm import tqdm

from lightning_opplan.data import deadline
from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.flow import Modality
from lightning_opplan.data.frames.index_database import FileKey, IndexCache, cache_folder
from lightning_opplan.data.images import index_pictures, read_pictures
from lightning_opplan.data.indexing import FrameIndex, build_index
from lightning_opplan.data.torchcodec_decoding import decode_frames_torchcodec
from lightning_opplan.data.video_files import Pictures, VideoError

T = TypeVar("T")

__all__ = ["clip_frames", "forget", "frame_index", "pixels", "scan"]

_INDICES: dict[FileKey, FrameIndex] = {}
_PIXELS: dict[FileKey, Pictures] = {}
_BATCH: Final = 256  # videos: what is lost if a scan is killed
_PATIENCE: Final = 60.0
"""Seconds without a packet after which a decoder is given up."""


def scan(paths: Iterable[str], *, modality: Modality = "rgb", keep_pixels: bool = False) -> list[VideoError]:
    """Read through every video that is not known yet, in parallel, and remember its index, on disk, too.

    A search builds many data modules over the same files; each file is read by the first of them only.

    Args:
        paths: Files, or folders of pictures.
        modality: What is in them.
        keep_pixels: Keep the decoded frames in memory: a byte per pixel, channel and frame.

    Returns:
        One error for each video that cannot be used, in the order of `paths`.
    """
    errors: dict[str, VideoError] = {}
    keys: dict[str, FileKey] = {}
    unique = list(dict.fromkeys(paths))
    for path in unique:
        try:
            keys[path] = _key(path, modality)
        except VideoError as error:
            errors[path] = error
    cache = _cache(cache_folder())
    _INDICES.update(cache.read([key for key in keys.values() if key not in _INDICES]))

    def read(path: str) -> VideoError | None:
        key = keys[path]
        try:
            if key not in _INDICES:
                _INDICES[key] = _index(path, modality)
            if keep_pixels and key not in _PIXELS:
                frames = clip_frames(path, range(_INDICES[key].num_frames), modality=modality)
                _PIXELS[key] = frames.permute(0, 2, 3, 1).numpy()
        except VideoError as error:
            return error
        return None

    pending = [path for path, key in keys.items() if key not in _INDICES or (keep_pixels and key not in _PIXELS)]
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
        tqdm(total=len(pending), desc="Reading videos", unit="video", delay=3) as progress,
    ):
        for begin in range(0, len(pending), _BATCH):
            batch = pending[begin : begin + _BATCH]
            unknown = [path for path in batch if keys[path] not in _INDICES]
            for path, found in zip(batch, pool.map(read, batch), strict=True):
                progress.update()
                if found is not None:
                    errors[path] = found
            cache.write({keys[path]: _INDICES[keys[path]] for path in unknown if keys[path] in _INDICES})
    return [errors[path] for path in unique if path in errors]


def frame_index(path: str, modality: Modality = "rgb") -> FrameIndex:
    """Return the index of a video, reading through it if no process has."""
    key = _key(path, modality)
    if key not in _INDICES:
        _INDICES.update(_cache(cache_folder()).read([key]))  # a worker that was not forked knows nothing yet
    if key not in _INDICES:
        _INDICES[key] = _index(path, modality)
    return _INDICES[key]


def pixels(path: str, modality: Modality = "rgb") -> Pictures | None:
    """Return all frames of a video ``(N, H, W, C)``, uint8, if they are kept in memory."""
    return _PIXELS.get(_key(path, modality)) if _PIXELS else None


def clip_frames(
    path: str,
    indices: Sequence[int],
    *,
    modality: Modality = "rgb",
    short_side: int | None = None,
    decoder: str = "pyav",
) -> Tensor:
    """Return frames ``(len(indices), C, H, W)``, uint8, of a file at `short_side` px, of a folder as they are."""
    if os.path.isdir(path):
        return _watched(path, lambda: read_pictures(path, indices, modality))
    index = frame_index(path, modality)
    if modality == "flow":  # as they are: what is scaled is no longer flow of that size
        return _watched(path, lambda: decode_frames(path, indices, index=index)[:, :2])
    decode = decode_frames_torchcodec if decoder == "torchcodec" else decode_frames
    return _watched(path, lambda: decode(path, indices, index=index, short_side=short_side))


def forget() -> None:
    """Free the memory."""
    _INDICES.clear()
    _PIXELS.clear()


@lru_cache(maxsize=1)
def _cache(folder: Path) -> IndexCache:
    return IndexCache(folder / "videos.sqlite")


def _index(path: str, modality: Modality) -> FrameIndex:
    if os.path.isdir(path):
        return _watched(path, lambda: index_pictures(path, modality))
    if modality == "flow" and not path.lower().endswith(".gif"):
        raise VideoError(
            path,
            "it is no optical flow, which comes as pairs of pictures or as a GIF: "
            "make it with `opplan flow`, and name its folder as `flow_dir`",
        )
    return _watched(path, lambda: build_index(path))


def _watched(path: str, task: Callable[[], T]) -> T:
    try:
        return deadline.run(task, seconds=_PATIENCE)
    except deadline.StalledError as error:
        raise VideoError(path, f"the decoder hangs ({error})") from None


def _key(path: str, modality: Modality) -> FileKey:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, error.strerror or "it cannot be read") from None
    # A folder may hold both.
    return path if modality == "rgb" else f"{modality}:{path}", status.st_mtime_ns, status.st_size
