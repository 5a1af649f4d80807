"""How clips are cut, by what was asked for and what the network was made for."""

from dataclasses import dataclass
from typing import Final

from lightning_opplan.data.clips import ClipSpec
from lightning_opplan.data.frames.sources import Source
from lightning_opplan.data.sampling import SEGMENT_LENGTH, Sampling, ShortVideo
from lightning_opplan.inputs import Preprocessing

__all__ = ["AskedClips"]

_OF_PAPER: Final = Preprocessing(crop_size=224, short_side=256, clip_length=16)
_LARGEST_SIDE: Final = 340 / 256  # of the smallest one


@dataclass(frozen=True, kw_only=True)
class AskedClips:
    """Arguments of `VideoDataModule`; ``None`` leaves it to the network."""

    sampling: Sampling
    short_video: ShortVideo
    flip: bool
    clip_length: int | None
    eval_clip_length: int | None
    frame_stride: int
    eval_frame_stride: int | None
    short_side: tuple[int, int] | None
    crop_size: int | None
    test_crop_size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def specs(self, source: Source, network: Preprocessing | None = None) -> tuple[ClipSpec, ClipSpec, ClipSpec]:
        """Return how clips are cut for training, validation and test.

        Args:
            source: Where frames come from.
            network: What the network was made for, if it says so.

        Raises:
            ValueError: If lengths or sizes do not go together.
        """
        default = network or _OF_PAPER
        length = self.clip_length or default.clip_length or 16
        size = self.crop_size or default.crop_size
        smallest = default.short_side if network is None else round(default.short_side * size / default.crop_size)
        sides = self.short_side or (smallest, round(smallest * _LARGEST_SIDE))
        if not size <= sides[0] <= sides[1]:
            raise ValueError(f"`short_side` must be a range in px of at least `crop_size` ({size}), got {sides!r}.")
        eval_length, test_size = self.eval_clip_length or length, self.test_crop_size or size
        for argument, each in {"clip_length": length, "eval_clip_length": eval_length}.items():
            if self.sampling == "uniform" and each % SEGMENT_LENGTH:
                raise ValueError(
                    f"`{argument}` must be a multiple of {SEGMENT_LENGTH} for uniform sampling, got {each}."
                )

        def spec(length: int, stride: int, size: int, sides: tuple[int, int]) -> ClipSpec:
            return ClipSpec(
                sampling=self.sampling, clip_length=length, frame_stride=stride, short_video=self.short_video,
                crop_size=size, short_side=sides, flip=self.flip, source=source,
                mean=tuple(self.mean or default.mean), std=tuple(self.std or default.std),
            )  # fmt: skip

        stride = self.eval_frame_stride or self.frame_stride
        return (
            spec(length, self.frame_stride, size, sides),
            spec(eval_length, stride, size, sides),
            spec(eval_length, stride, test_size, (test_size, test_size)),
        )
