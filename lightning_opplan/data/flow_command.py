"""Write the optical flow of a data module's videos to its `flow_dir`: what `opplan flow` does."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from io import BytesIO
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any, Final

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lightning_opplan.data.flow import BOUND, Flow, FlowMethod, flow_method, quantised
from lightning_opplan.data.flow_files import FlowFiles, FlowSettings, WrittenFlow, write_pairs
from lightning_opplan.data.frames import memory
from lightning_opplan.data.lists import first_names, flow_folder
from lightning_opplan.data.module import VideoDataModule
from lightning_opplan.data.transforms import resize_short_side
from lightning_opplan.data.video_files import VideoError
from lightning_opplan.wording import duration, readable_size

__all__ = ["write_flow"]

_BLOCK: Final = 64  # frames to hold at a time
_PROBES: Final = 3  # videos of which a pair is tried before


@dataclass(frozen=True, kw_only=True)
class _Job:
    path: str
    folder: Path
    name: str
    settings: FlowSettings
    weights: str | None


def write_flow(
    data: VideoDataModule,
    *,
    method: FlowMethod = "tv_l1",
    weights: str | None = None,
    short_side: int = 256,
    bound: float = BOUND,
    num_processes: int = 1,
) -> None:
    """Say how much it will be, write what is not there yet, and check all that is there.

    Args:
        data: Has a `flow_dir`. The flow of the videos of all splits is written.
        method: ``"tv_l1"``, or ``"raft"`` on a GPU.
        weights: File with weights of RAFT.
        short_side: Short side in px that frames are scaled to before; smaller ones are taken as they are.
        bound: Displacement in px that the lightest grey stands for; what is beyond is cut.
        num_processes: Videos to work on at a time.

    Raises:
        ValueError: If there is no `flow_dir`, or it has flow of other settings.
        OSError: If there is not enough space, or another process writes to the folder.
        VideoError: If a video cannot be decoded and `on_error` is `"raise"`, or what was written is damaged.
    """
    if data.flow_dir is None:
        raise ValueError("`data.flow_dir` must be the folder to write optical flow to, got none.")
    if bound <= 0:
        raise ValueError(f"`bound` must be positive, got {bound!r}.")
    if num_processes < 1:
        raise ValueError(f"`num_processes` must be at least 1, got {num_processes!r}.")
    folder = Path(data.flow_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / "lock", thread_local=False).acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(f"`flow_dir` must have one writer at a time, got {folder}, which has one.") from None
    with held:
        settings = FlowSettings(method=method, short_side=short_side, bound=bound)
        _write(data, FlowFiles(folder, settings), settings, weights, num_processes)


def _write(
    data: VideoDataModule, files: FlowFiles, settings: FlowSettings, weights: str | None, num_processes: int
) -> None:
    data.prepare_data()  # some are drawn or downloaded by it
    data.source = replace(data.source, modality="rgb")  # what is read are frames
    listed = data.without_missing(data.read_videos())
    videos = [video for videos in listed.splits.values() for video in videos]
    paths = {os.path.relpath(flow_folder(files.folder, video), files.folder): video.path for video in videos}
    if len(paths) < len({video.path for video in videos}):
        raise ValueError("`root` must hold no two videos that differ by their suffix alone: their flow would clash.")
    todo = {name: path for name, path in paths.items() if name not in files.written}
    files.begin(todo)
    broken = {error.path: error for error in memory.scan(todo.values())}
    if broken and data.on_error == "raise":
        raise next(iter(broken.values()))
    jobs = [
        _Job(path=path, folder=files.folder, name=name, settings=settings, weights=weights)
        for name, path in todo.items()
        if path not in broken
    ]
    if jobs:
        num_processes = min(num_processes, len(jobs))
        _announce(jobs, len(paths), num_processes)
    for written in tqdm(_done(jobs, num_processes), total=len(jobs), desc="Finding flow", unit="video"):
        if isinstance(written, WrittenFlow):
            files.add(written)
        elif data.on_error == "raise":
            raise written
        else:
            broken[written.path] = written
    checked = tqdm(files.damaged(), total=len(files.written), desc="Checking flow", unit="video")
    damaged = [name for name, is_damaged in checked if is_damaged]
    if damaged:
        files.forget(damaged)
        raise VideoError(
            str(files.folder),
            f"the flow of {first_names(damaged)} was damaged and is off the list: the same command finds it again",
        )
    for error in broken.values():
        print(f"Left out: {error}")
    print(f"The flow of {len(files.written)} videos is in {files.folder}, and its checksums are right.")


def _announce(jobs: list[_Job], num_videos: int, num_processes: int) -> None:
    """Say what is to come, by what a pair of some videos takes."""
    picked = [jobs[len(jobs) * probe // _PROBES] for probe in range(min(_PROBES, len(jobs)))]
    flow = flow_method(picked[0].settings.method, weights=picked[0].weights)  # type: ignore[arg-type]
    seconds = per_pixel = 0.0
    for job in picked:
        num_frames = memory.frame_index(job.path).num_frames
        try:
            frames = list(_scaled(job, range(num_frames)[num_frames // 2 - 1 : num_frames // 2 + 1]))
        except VideoError:
            continue  # it is told when its turn comes
        if len(frames) < 2:
            continue
        began = time.perf_counter()
        found = flow(*frames)
        seconds += (time.perf_counter() - began) / found[0].size / len(picked)
        per_pixel += (
            sum(_num_bytes(grey) for grey in quantised(found, job.settings.bound)) / found[0].size / len(picked)
        )
    num_pairs, pixels = 0, 0.0
    for job in jobs:
        index = memory.frame_index(job.path)
        scale = min(job.settings.short_side / min(index.height, index.width), 1.0)
        num_pairs += index.num_frames - 1
        pixels += (index.num_frames - 1) * index.height * index.width * scale**2
    size, free = int(per_pixel * pixels), shutil.disk_usage(jobs[0].folder).free
    print(
        f"The flow of {len(jobs)} of {num_videos} videos is to be written to {jobs[0].folder}: {num_pairs:,} pairs, "
        f"about {readable_size(size)} and {duration(seconds * pixels / num_processes)} in "
        f"{num_processes} process{'' if num_processes == 1 else 'es'}."
    )
    if size > free:
        raise OSError(
            f"`flow_dir` must have room for {readable_size(size)}, got {jobs[0].folder} with {readable_size(free)}."
        )


def _done(jobs: list[_Job], num_processes: int) -> Iterator[WrittenFlow | VideoError]:
    """Do all jobs, several at a time in processes of their own."""
    if not jobs:
        return
    kind, weights = jobs[0].settings.method, jobs[0].weights
    if num_processes == 1:
        method = flow_method(kind, weights=weights)  # type: ignore[arg-type]
        for job in jobs:
            yield _extract(job, method)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context, _prepare, (kind, weights)) as pool:
        try:
            for future in as_completed([pool.submit(_extract_there, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare(kind: str, weights: str | None) -> None:
    """Use one thread, and end with the process that asks."""
    global _METHOD
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=follow, daemon=True).start()
    _METHOD = flow_method(kind, weights=weights)  # type: ignore[arg-type]


def _extract_there(job: _Job) -> WrittenFlow | VideoError:
    """Write the flow of a video, in a process for that."""
    assert _METHOD is not None
    return _extract(job, _METHOD)


def _extract(job: _Job, method: Callable[..., Flow]) -> WrittenFlow | VideoError:
    """Write the flow of a video."""
    try:
        num_frames = memory.frame_index(job.path).num_frames
        return write_pairs(job.folder, job.name, _scaled(job, range(num_frames)), method, job.settings.bound)
    except VideoError as error:
        return error


_METHOD: Callable[..., Flow] | None = None
"""Of this process; RAFT takes long to make."""


def _scaled(job: _Job, indices: range) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video at its short side, block by block."""
    index = memory.frame_index(job.path)
    short_side = min(job.settings.short_side, index.height, index.width)
    for begin in range(0, len(indices), _BLOCK):
        block = memory.clip_frames(job.path, indices[begin : begin + _BLOCK], short_side=short_side)
        frames: NDArray[Any] = resize_short_side(block, short_side).permute(0, 2, 3, 1).numpy()
        yield from frames


def _num_bytes(grey: NDArray[np.uint8]) -> int:
    stream = BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=95)
    return stream.tell()
