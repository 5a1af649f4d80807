"""Where the frames of a video come from: memory, a folder of decoded frames, pictures, or a decoder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_opplan.data import store
from lightning_opplan.data.pixel_cache import PixelCache

__all__ = ["Decoder", "Source", "take"]

Decoder = Literal["pyav", "torchcodec"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Gives out the frames of videos; a value, so that it can be sent to other processes.

    Attributes:
        root: Folder that names in `cache_dir` are relative to.
        cache_dir: Folder of decoded frames, used for the videos that it has.
        decoder: What decodes the others.
    """

    root: str = ""
    cache_dir: str | None = None
    decoder: Decoder = "pyav"

    def num_frames(self, path: str) -> int:
        """Return the number of frames of a video."""
        pixels = self.pixels(path)
        return store.frame_index(path).num_frames if pixels is None else len(pixels)

    def pixels(self, path: str) -> Tensor | None:
        """Return all frames of a video ``(N, C, H, W)``, uint8, if they lie decoded somewhere."""
        if self.cache_dir is not None:
            cached = PixelCache.opened(self.cache_dir).pixels(self.name(path))
            if cached is not None:
                return cached
        return store.pixels(path)

    def frames(self, path: str, indices: Sequence[int], *, short_side: int) -> Tensor:
        """Return frames ``(T, C, H, W)``, uint8: at `short_side` px from a decoder, else as they lie."""
        pixels = self.pixels(path)
        if pixels is not None:
            return take(pixels, indices)
        return store.clip_frames(path, indices, short_side=short_side, decoder=self.decoder)

    def is_cached(self, path: str) -> bool:
        """Return whether a video needs no file of its own."""
        return self.cache_dir is not None and self.name(path) in PixelCache.opened(self.cache_dir).videos

    def name(self, path: str) -> str:
        """Return what a video is called in `cache_dir`."""
        return os.path.relpath(path, self.root)


def take(frames: Tensor, indices: Sequence[int]) -> Tensor:
    """Copy some frames out of ``(N, C, H, W)``; on views of ``(N, H, W, C)`` many times as fast as indexing."""
    return torch.from_numpy(frames.permute(0, 2, 3, 1).numpy()[list(indices)]).permute(0, 3, 1, 2)
