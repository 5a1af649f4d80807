"""Write the decoded frames of a data module's videos to its `cache_dir`: what `opplan cache` does."""

import shutil
from collections.abc import Callable
from typing import Final

from torch import Tensor
from tqdm import tqdm

from lightning_opplan.data.flow import Modality
from lightning_opplan.data.frames import memory
from lightning_opplan.data.frames.pixel_files import PixelCache, write_pixels
from lightning_opplan.data.lists import first_names
from lightning_opplan.data.module import VideoDataModule
from lightning_opplan.data.transforms import resize_short_side, scaled_size
from lightning_opplan.data.video_files import VideoError
from lightning_opplan.wording import readable_size

__all__ = ["write_cache"]

_MEMORY: Final = 8 * 2**30
"""Bytes that videos in the work may take together; a single one may take more."""


def write_cache(data: VideoDataModule, *, short_side: int, num_threads: int) -> None:
    """Say how much it will be, write what is not there yet, and check all that is there.

    Args:
        data: Has a `cache_dir`. Videos of all splits are written.
        short_side: Short side of the frames in px.
        num_threads: Videos to decode at a time; fewer where they are so long that memory would not do.

    Raises:
        ValueError: If there is no `cache_dir`, or frames of another size are in it.
        OSError: If there is not enough space.
        VideoError: If a video cannot be decoded and `on_error` is `"raise"`, or what was written is damaged.
    """
    folder = data.source.cache_dir
    if folder is None:
        raise ValueError("`data.cache_dir` must be the folder to write decoded frames to, got none.")
    modality = data.source.modality
    have = PixelCache.begin(folder, short_side=short_side, modality=modality).videos
    data.prepare_data()  # some are drawn or downloaded by it
    listed = data.without_missing(data.read_list())
    videos = {video.name: video.path for videos in listed.splits.values() for video in videos}
    todo = {name: path for name, path in videos.items() if name not in have}
    broken = {error.path: error for error in memory.scan(todo.values(), modality=modality)}
    if broken and data.on_error == "raise":
        raise next(iter(broken.values()))
    todo = {name: path for name, path in todo.items() if path not in broken}
    sizes = [_num_bytes(path, short_side, modality) for path in todo.values()]
    size = sum(sizes)
    print(f"{len(todo)} of {len(videos)} videos are to be written to {folder}: {readable_size(size)}.")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"`data.cache_dir` must have room for {readable_size(size)}, got {folder} with {readable_size(free)}."
        )

    # Videos are held whole, twice for a moment, and one more of them than there are threads.
    num_threads = min(num_threads, max(1, _MEMORY // (2 * max(sizes, default=1)) - 1))
    jobs = {name: _decoding(path, short_side, modality) for name, path in todo.items()}
    written = write_pixels(folder, jobs, short_side=short_side, modality=modality, num_threads=num_threads)
    for _, error in tqdm(written, total=len(jobs), desc="Writing frames", unit="video"):
        if error is not None:
            if data.on_error == "raise":
                raise error
            broken[error.path] = error
    cache = PixelCache(folder)
    checked = tqdm(cache.damaged(), total=len(cache.videos), desc="Checking frames", unit="video")
    damaged = [name for name, is_damaged in checked if is_damaged]
    if damaged:
        raise VideoError(folder, f"the frames of {first_names(damaged)} are damaged; delete the folder and begin anew")
    for error in broken.values():
        print(f"Left out: {error}")
    print(f"{len(cache.videos)} videos are in {folder}, and their checksums are right.")


def _decoding(path: str, short_side: int, modality: Modality) -> Callable[[], Tensor]:
    def decode() -> Tensor:
        indices = range(memory.frame_index(path, modality).num_frames)
        frames = memory.clip_frames(path, indices, modality=modality, short_side=short_side)
        return resize_short_side(frames, short_side)

    return decode


def _num_bytes(path: str, short_side: int, modality: Modality) -> int:
    index = memory.frame_index(path, modality)
    height, width = scaled_size(index.height, index.width, short_side)
    return index.num_frames * height * width * (2 if modality == "flow" else 3)
