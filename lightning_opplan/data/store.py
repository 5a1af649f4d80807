"""What is known of the video files of this process: how many frames they have, and their pixels if there is room."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor
from tqdm import tqdm

from lightning_opplan.data.decoding import VideoError, count_frames, decode_frames

__all__ = ["clip_frames", "forget", "num_frames", "scan"]

_Key = tuple[str, int, int]
_COUNTS: dict[_Key, int] = {}
_PIXELS: dict[_Key, Tensor] = {}


def scan(paths: Iterable[str], *, keep_pixels: bool = False) -> list[VideoError]:
    """Decode every file once, in parallel, and remember its number of frames.

    A search builds many data modules over the same files; each file is read by the first of them only.

    Args:
        paths: The files.
        keep_pixels: Keep the decoded frames in memory: three bytes per pixel and frame.

    Returns:
        One error for each file that cannot be used, in the order of `paths`.
    """
    pending = [path for path in dict.fromkeys(paths) if _is_new(path, keep_pixels)]

    def read(path: str) -> VideoError | None:
        try:
            _read(path, keep_pixels)
        except VideoError as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = tqdm(pool.map(read, pending), total=len(pending), desc="Reading videos", unit="video", delay=3)
        return [error for error in results if error is not None]


def num_frames(path: str) -> int:
    """Return the number of frames of a video, decoding it if `scan` has not."""
    key = _key(path)
    if key not in _COUNTS:
        _read(path, keep_pixels=False)
    return _COUNTS[key]


def clip_frames(path: str, indices: Sequence[int]) -> Tensor:
    """Return frames ``(len(indices), C, H, W)``, uint8, from memory if they are kept there, else from the file."""
    pixels = _PIXELS.get(_key(path))
    return decode_frames(path, indices) if pixels is None else pixels[list(indices)]


def forget() -> None:
    """Free the memory."""
    _COUNTS.clear()
    _PIXELS.clear()


def _read(path: str, keep_pixels: bool) -> None:
    key = _key(path)
    if keep_pixels:
        _PIXELS[key] = decode_frames(path)
        _COUNTS[key] = len(_PIXELS[key])
    else:
        _COUNTS[key] = count_frames(path)


def _is_new(path: str, keep_pixels: bool) -> bool:
    try:
        key = _key(path)
    except VideoError:
        return True
    return key not in _COUNTS or (keep_pixels and key not in _PIXELS)


def _key(path: str) -> _Key:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, error.strerror or "it cannot be read") from None
    return path, status.st_mtime_ns, status.st_size
