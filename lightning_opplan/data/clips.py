"""Clips of videos as a dataset."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_opplan.data import store
from lightning_opplan.data.lists import Video
from lightning_opplan.data.sampling import Sampling, ShortVideo, clip_indices, spaced_offset
from lightning_opplan.data.transforms import augment, centre_crop, normalise, three_crops

__all__ = ["ClipSpec", "EvaluationClips", "TestViews", "TrainingClips"]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How clips are cut from videos.

    Attributes:
        sampling: Neighbouring frames, or segments from the whole video.
        clip_length: Frames of a clip.
        frame_stride: Step between the frames of a consecutive clip.
        short_video: What follows the last frame of a video that is too short.
        crop_size: Side of the crops in px.
        short_side: Smallest and largest short side in px that frames are scaled to before; the smallest in evaluation.
        flip: Whether training flips half of the clips.
    """

    sampling: Sampling
    clip_length: int
    frame_stride: int
    short_video: ShortVideo
    crop_size: int
    short_side: tuple[int, int]
    flip: bool = False

    def frames(self, path: str, *, view: int | None = None, num_views: int = 1) -> Tensor:
        """Return the frames ``(T, C, H, W)`` of a random clip, or of one of some evenly spaced ones."""
        indices = clip_indices(
            store.num_frames(path),
            self.clip_length,
            sampling=self.sampling,
            offset=_random_offset if view is None else spaced_offset(view, num_views),
            frame_stride=self.frame_stride,
            short_video=self.short_video,
        )
        return store.clip_frames(path, indices)


class _Clips(Dataset[tuple[Tensor, int]], ABC):
    def __init__(self, videos: Sequence[Video], spec: ClipSpec) -> None:
        self.videos, self.spec = videos, spec

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        video = self.videos[index]
        return self.clip(video.path), video.label

    @abstractmethod
    def clip(self, path: str) -> Tensor: ...


class TrainingClips(_Clips):
    """One random clip ``(C, T, H, W)`` per video, augmented, and its label."""

    def clip(self, path: str) -> Tensor:
        """Draw a clip."""
        spec = self.spec
        frames = spec.frames(path)
        return normalise(augment(frames, short_side=spec.short_side, crop_size=spec.crop_size, flip=spec.flip))


class EvaluationClips(_Clips):
    """The centre clip ``(C, T, H, W)`` of every video, centre crop, and its label (section 5.1)."""

    def clip(self, path: str) -> Tensor:
        """Cut the clip."""
        frames = self.spec.frames(path, view=0)
        return normalise(centre_crop(frames, short_side=self.spec.short_side[0], crop_size=self.spec.crop_size))


class TestViews(_Clips):
    """Evenly spaced clips of every video, each in three crops: ``(V, C, T, H, W)``, and its label (section 5.1).

    Args:
        videos: The videos.
        spec: How clips are cut; crops are taken at a short side of the crop's size.
        num_clips: Clips per video.
        num_crops: 3, or 1 for the centre alone.
    """

    __test__ = False  # the name is not pytest's

    def __init__(self, videos: Sequence[Video], spec: ClipSpec, *, num_clips: int, num_crops: int) -> None:
        super().__init__(videos, spec)
        self.num_clips, self.num_crops = num_clips, num_crops

    def clip(self, path: str) -> Tensor:
        """Cut all views."""
        size = self.spec.crop_size
        views = []
        for view in range(self.num_clips):
            frames = self.spec.frames(path, view=view, num_views=self.num_clips)
            if self.num_crops == 1:
                views.append(normalise(centre_crop(frames, short_side=size, crop_size=size)))
            else:
                views += [normalise(crop) for crop in three_crops(frames, short_side=size, crop_size=size)]
        return torch.stack(views)


def _random_offset(last: int) -> int:
    return int(torch.randint(last + 1, ()))
