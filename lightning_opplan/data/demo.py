"""Synthetic videos for the demo, drawn here, encoded to real MP4 files and decoded again.

A soft blob moves on a noisy background. Two kinds of class, so that there is something to plan for:

- *rhythm*: the blob swings, faster or slower. The way per frame is the same for all of them, so one step tells
  nothing; a few neighbouring frames do.
- *order*: one thing happens early in the video and one late, growing or sliding, and back. Only a look at the whole
  video tells which came first.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from filelock import FileLock
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import NDArray
from typing_extensions import override

from lightning_opplan.data.module import VideoDataModule

__all__ = ["CLASSES", "DemoDataModule", "draw_video", "write_demo_videos"]

_SIZE: Final = 32  # px
_PERIODS: Final = {"swing-fast": 6, "swing-brisk": 9, "swing-slow": 14, "swing-lazy": 22}  # frames
_SPEED: Final = 1.1  # px per frame, on average, for all rhythms
_EVENTS: Final = {
    "grow-then-slide": ("grow", "slide"),
    "slide-then-grow": ("slide", "grow"),
    "grow-then-drop": ("grow", "drop"),
    "drop-then-grow": ("drop", "grow"),
}
CLASSES: Final = (*_PERIODS, *_EVENTS)
_FORMAT: Final = 1  # raise it when a change makes other videos
# The same quality for every frame: with rate control the end of a video is coded worse than its beginning, and a
# network learns to tell early from late by that.
_ENCODING: Final = {"qp": "16", "preset": "veryfast", "x264-params": "mbtree=0:bframes=0:keyint=8:scenecut=0"}

Picture = NDArray[np.uint8]


def draw_video(name: str, generator: np.random.Generator) -> Iterator[Picture]:
    """Draw the frames of one video of a class.

    Args:
        name: One of `CLASSES`.
        generator: Draws place, colour, direction, length and noise.

    Yields:
        ``(32, 32, 3)``, uint8, RGB; 104 to 136 frames.
    """
    length = int(generator.integers(104, 137))
    centre = generator.uniform(12, 20, size=2)  # (x, y)
    radius = np.full(length, generator.uniform(2.6, 3.4))
    place = np.tile(centre, (length, 1))
    if name in _PERIODS:
        period = _PERIODS[name] * generator.uniform(0.93, 1.07)
        phase = generator.uniform(0, 2 * np.pi)
        amplitude = _SPEED * period / 4  # a swing covers four amplitudes per period
        swing = amplitude * np.sin(2 * np.pi * np.arange(length) / period + phase)
        angle = generator.uniform(0, 2 * np.pi)
        place += swing[:, None] * np.array([np.cos(angle), np.sin(angle)])
    else:
        # At least forty frames between the events: no clip of 32 neighbouring frames sees something of both.
        window = 3 * length // 10
        for event, first in zip(_EVENTS[name], (0, length - window), strict=True):
            duration = int(generator.integers(16, 22))
            begin = first + int(generator.integers(0, window - duration + 1))
            # There and back: what is seen between the two events must not give the first one away.
            pulse = np.sin(np.pi * np.clip((np.arange(length) - begin) / duration, 0, 1)) ** 2
            if event == "grow":
                radius += pulse * generator.uniform(2.6, 3.4)
            else:
                way = generator.choice([-1, 1]) * generator.uniform(8, 10)
                place[:, 0 if event == "slide" else 1] += way * pulse
    # A slow drift for all, so that standing still tells nothing.
    drift = np.cumsum(generator.normal(0, 0.12, size=(length, 2)), axis=0)
    place += drift - drift[generator.integers(length)]

    colour = generator.uniform(0.55, 1.0, size=3)
    ground = generator.uniform(0.0, 0.35, size=3)
    noise = generator.uniform(0.02, 0.07)
    ys, xs = np.mgrid[:_SIZE, :_SIZE]
    for (x, y), size in zip(place, radius, strict=True):
        blob = np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * (size / 1.6) ** 2))[:, :, None]
        picture = ground * (1 - blob) + colour * blob + generator.normal(0, noise, size=(_SIZE, _SIZE, 3))
        yield np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def write_demo_videos(folder: str | os.PathLike[str], *, num_train: int, num_test: int, seed: int) -> Path:
    """Write the videos of the demo as ``<train|test>/<class>/<number>.mp4``, unless they are there already.

    Args:
        folder: Where to; created whole or not at all.
        num_train: Training videos per class.
        num_test: Test videos per class.
        seed: Seed of all drawings.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something else.
    """
    folder = Path(folder)
    recipe = {"format": _FORMAT, "num_train": num_train, "num_test": num_test, "seed": seed}
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Edges side by side find the videos missing at the same moment.
    with _locked(folder.with_name(f".{folder.name}.lock")):
        mark = folder / "recipe.json"
        if mark.is_file() and json.loads(mark.read_text()) == recipe:
            return folder
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"`root` must be a new folder, or one with the same demo videos, got {str(folder)!r} with something "
                "else in it. Choose another folder, or delete this one."
            )
        total = (num_train + num_test) * len(CLASSES)
        rank_zero_info(f"Drawing {total} demo videos in {folder} …")
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for split, count in (("train", num_train), ("test", num_test)):
            for label, name in enumerate(CLASSES):
                target = unfinished / split / name
                target.mkdir(parents=True)
                for number in range(count):
                    generator = np.random.default_rng([seed, ("train", "test").index(split), label, number])
                    rate = int(generator.choice([15, 24, 25, 30]))
                    _encode(target / f"{number:03d}.mp4", draw_video(name, generator), rate)
        (unfinished / "recipe.json").write_text(json.dumps(recipe))
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
        return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Wait until no other process holds a lock, and leave no file of it."""
    with FileLock(file):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _encode(file: Path, pictures: Iterator[Picture], rate: int) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=_ENCODING)
        stream.width = stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


class DemoDataModule(VideoDataModule):
    """The videos of the demo, drawn on first use.

    Args:
        root: Folder for the videos.
        num_train: Training videos per class, internal validation included.
        num_test: Test videos per class.
        drawing_seed: Seed of the drawings.
        **options: Those of `VideoDataModule`.
    """

    def __init__(
        self, root: str, *, num_train: int = 60, num_test: int = 20, drawing_seed: int = 0, **options: Any
    ) -> None:
        super().__init__(root, **options)
        self.num_train, self.num_test, self.drawing_seed = num_train, num_test, drawing_seed

    @override
    def prepare_data(self) -> None:
        write_demo_videos(self.root, num_train=self.num_train, num_test=self.num_test, seed=self.drawing_seed)
        super().prepare_data()
