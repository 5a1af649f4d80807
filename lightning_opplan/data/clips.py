"""Clips of videos as a dataset."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from lightning_opplan.data.flow import FLOW_MEAN, FLOW_STD
from lightning_opplan.data.frames.sources import Source, take
from lightning_opplan.data.lists import Video
from lightning_opplan.data.sampling import Offset, Sampling, ShortVideo, clip_indices, spaced_offset
from lightning_opplan.data.transforms import Augmentation, centre_crop, normalise, resize_short_side, three_crops
from lightning_opplan.data.video_files import VideoError
from lightning_opplan.inputs import IMAGENET_MEAN, IMAGENET_STD, Shape

__all__ = ["BrokenVideos", "ClipSpec", "EvaluationClips", "TestViews", "TrainingClips"]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How clips are cut from videos.

    Attributes:
        sampling: Neighbouring frames, or segments from the whole video.
        clip_length: Frames of a clip.
        frame_stride: Step between the frames of a consecutive clip.
        short_video: What follows the last frame of a video that is too short.
        crop_size: Side of the crop in px.
        short_side: Smallest and largest short side in px that frames are scaled to before; the smallest in evaluation.
        flip: Whether training flips half of the clips.
        source: Where frames come from.
        mean: Of every channel, of values from 0 to 1; of flow, its own.
        std: The same for the standard deviation.
    """

    sampling: Sampling
    clip_length: int
    frame_stride: int
    short_video: ShortVideo
    crop_size: int
    short_side: tuple[int, int]
    flip: bool = False
    source: Source = field(default_factory=Source)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def shape(self) -> Shape:
        """``(C, T, H, W)`` of a clip."""
        return (2 if self.source.modality == "flow" else 3, self.clip_length, self.crop_size, self.crop_size)

    def indices(self, video: Video, offset: Offset) -> list[int]:
        """Return the frames of a clip at an offset that is chosen."""
        return clip_indices(
            self.source.num_frames(video),
            self.clip_length,
            sampling=self.sampling,
            offset=offset,
            frame_stride=self.frame_stride,
            short_video=self.short_video,
        )

    def scaled(self, side: float) -> "ClipSpec":
        """Return it for frames of `side` times the height and width."""
        crop_size = round(side * self.crop_size)
        smallest, largest = (max(round(side * each), crop_size) for each in self.short_side)
        return replace(self, crop_size=crop_size, short_side=(smallest, largest))

    def normalise(self, frames: Tensor) -> Tensor:
        """Turn frames ``(T, C, H, W)`` of uint8 into a clip ``(C, T, H, W)`` of what networks take."""
        is_flow = self.source.modality == "flow"
        return normalise(frames, *((FLOW_MEAN, FLOW_STD) if is_flow else (self.mean, self.std)))


class BrokenVideos:
    """Which videos could not be decoded after all, counted over all processes that load clips.

    Args:
        num_videos: Videos of the dataset.
        limit: How many may be left out; none if errors are to be raised.
    """

    def __init__(self, num_videos: int, limit: int = 0) -> None:
        self.limit = limit
        self._marks = torch.zeros(num_videos, dtype=torch.bool)
        self._marks.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return int(self._marks.sum())

    def __contains__(self, index: int) -> bool:
        return bool(self._marks[index])

    def add(self, index: int, error: VideoError) -> None:
        """Leave a video out from now on, with a word.

        Raises:
            VideoError: If that is one too many.
        """
        # Another process may have met the same video meanwhile: it counts once.
        others = self._marks.clone()
        others[index] = False
        if (num_others := int(others.sum())) >= self.limit:
            if self.limit:
                error.reason += f" (and {num_others} videos were left out before: more than `max_broken` allows)"
            raise error
        self._marks[index] = True
        rank_zero_warn(f"A video cannot be decoded and is left out, the next one takes its place: {error}")


class _Clips(Dataset[tuple[Tensor, int]], ABC):
    def __init__(self, videos: Sequence[Video], spec: ClipSpec, *, max_broken: int = 0) -> None:
        self.videos, self.spec = videos, spec
        self.broken = BrokenVideos(len(videos), min(max_broken, len(videos) - 1))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, item: int | tuple[int, float]) -> tuple[Tensor, int]:
        """Return a clip and its label; with a number beside the index, of that many times the height and width."""
        index, side = item if isinstance(item, tuple) else (item, 1.0)
        # One draw for each clip, however many videos are tried for it: what comes after must not depend on that.
        seed = int(torch.randint(2**62, ()))
        # In place of a video that cannot be decoded, the next one: batches keep their size. There is always one left.
        while True:
            video = self.videos[index]
            if index not in self.broken:
                try:
                    return self.clip(video, torch.Generator().manual_seed(seed), side=side), video.label
                except VideoError as error:
                    self.broken.add(index, error)
            index = (index + 1) % len(self.videos)

    @abstractmethod
    def clip(self, video: Video, generator: torch.Generator, *, side: float = 1.0) -> Tensor: ...


class TrainingClips(_Clips):
    """One random clip ``(C, T, H, W)`` per video, augmented, and its label."""

    def clip(self, video: Video, generator: torch.Generator, *, side: float = 1.0) -> Tensor:
        """Draw a clip, of `side` times the height and width."""
        spec = self.spec.scaled(side)
        indices = spec.indices(video, lambda last: int(torch.randint(last + 1, (), generator=generator)))
        augment = Augmentation.draw(
            short_side=spec.short_side,
            crop_size=spec.crop_size,
            flip=spec.flip,
            modality=spec.source.modality,
            generator=generator,
        )
        pixels = spec.source.pixels(video)
        if pixels is None:
            return spec.normalise(augment(spec.source.frames(video, indices, short_side=augment.short_side)))
        rows, columns = augment.box(*pixels.shape[1:3])
        return spec.normalise(augment.resize(take(pixels[:, rows, columns], indices)))


class EvaluationClips(_Clips):
    """The centre clip ``(C, T, H, W)`` of every video, centre crop, and its label (section 5.1)."""

    def clip(self, video: Video, generator: torch.Generator, *, side: float = 1.0) -> Tensor:  # noqa: ARG002
        """Cut the clip."""
        spec = self.spec
        frames = spec.source.frames(video, spec.indices(video, spaced_offset(0, 1)), short_side=spec.short_side[0])
        return spec.normalise(centre_crop(frames, short_side=spec.short_side[0], crop_size=spec.crop_size))


class TestViews(_Clips):
    """Evenly spaced clips of every video, each in three crops: ``(V, C, T, H, W)``, and its label (section 5.1).

    Args:
        videos: The videos.
        spec: How clips are cut; crops are taken at a short side of the crop's size.
        num_clips: Clips per video.
        num_crops: 3, or 1 for the centre alone.
        max_broken: How many videos may be left out.
    """

    __test__ = False  # the name is not pytest's

    def __init__(
        self, videos: Sequence[Video], spec: ClipSpec, *, num_clips: int, num_crops: int, max_broken: int = 0
    ) -> None:
        super().__init__(videos, spec, max_broken=max_broken)
        self.num_clips, self.num_crops = num_clips, num_crops

    def clip(self, video: Video, generator: torch.Generator, *, side: float = 1.0) -> Tensor:  # noqa: ARG002
        """Cut all views."""
        size = self.spec.crop_size
        clips = [self.spec.indices(video, spaced_offset(view, self.num_clips)) for view in range(self.num_clips)]
        # The clips of a video overlap or lie close: its frames are decoded in one go.
        needed = sorted({index for indices in clips for index in indices})
        frames = resize_short_side(self.spec.source.frames(video, needed, short_side=size), size)
        places = {index: place for place, index in enumerate(needed)}
        views = []
        for indices in clips:
            clip = frames[[places[index] for index in indices]]
            if self.num_crops == 1:
                views.append(self.spec.normalise(centre_crop(clip, short_side=size, crop_size=size)))
            else:
                views += [self.spec.normalise(crop) for crop in three_crops(clip, short_side=size, crop_size=size)]
        return torch.stack(views)
