"""Where the frames of a video come from: memory, a folder of decoded frames, pictures, or a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_opplan.data.flow import Modality
from lightning_opplan.data.frames import memory
from lightning_opplan.data.frames.pixel_files import PixelCache
from lightning_opplan.data.lists import Video
from lightning_opplan.data.video_files import Pictures

__all__ = ["Decoder", "Source", "take"]

Decoder = Literal["pyav", "torchcodec"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Gives out the frames of videos; a value, so that it can be sent to other processes.

    Attributes:
        cache_dir: Folder of decoded frames, used for the videos that it has.
        decoder: What decodes the others.
        modality: What the videos hold: three channels of RGB, or two of optical flow.
    """

    cache_dir: str | None = None
    decoder: Decoder = "pyav"
    modality: Modality = "rgb"

    def num_frames(self, video: Video) -> int:
        """Return the number of frames of a video."""
        pixels = self.pixels(video)
        return memory.frame_index(video.path, self.modality).num_frames if pixels is None else len(pixels)

    def pixels(self, video: Video) -> Pictures | None:
        """Return all frames of a video ``(N, H, W, C)``, uint8, if they lie decoded somewhere, to read only."""
        if self.cache_dir is not None:
            cached = PixelCache.opened(self.cache_dir).pixels(video.name)
            if cached is not None:
                return cached
        return memory.pixels(video.path, self.modality)

    def frames(self, video: Video, indices: Sequence[int], *, short_side: int) -> Tensor:
        """Return frames ``(T, C, H, W)``, uint8: at `short_side` px from a decoder, else as they lie."""
        pixels = self.pixels(video)
        if pixels is not None:
            return take(pixels, indices)
        return memory.clip_frames(
            video.path, indices, modality=self.modality, short_side=short_side, decoder=self.decoder
        )

    def is_cached(self, video: Video) -> bool:
        """Return whether a video needs no file of its own."""
        return self.cache_dir is not None and video.name in PixelCache.opened(self.cache_dir).videos


def take(pixels: Pictures, indices: Sequence[int]) -> Tensor:
    """Copy some frames out of ``(N, H, W, C)``: ``(T, C, H, W)``. NumPy does that many times as fast as torch."""
    return torch.from_numpy(pixels[list(indices)]).permute(0, 3, 1, 2)
