"""Which frames of a video make a clip, as pure integer functions.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, sections 1 and 5.1. The layout of uniform sampling
    follows the released implementation: the stem's temporal stride is four, so four neighbours are kept together.
"""

from collections.abc import Callable
from typing import Final, Literal

__all__ = ["SEGMENT_LENGTH", "Offset", "Sampling", "ShortVideo", "clip_indices", "spaced_offset"]

Sampling = Literal["consecutive", "uniform"]
ShortVideo = Literal["loop", "pad"]
Offset = Callable[[int], int]
"""Chooses one of the offsets from 0 up to and with its argument."""

SEGMENT_LENGTH: Final = 4
"""Neighbouring frames that uniform sampling takes from each segment."""


def clip_indices(
    num_frames: int,
    clip_length: int,
    *,
    sampling: Sampling,
    offset: Offset,
    frame_stride: int = 1,
    short_video: ShortVideo = "loop",
) -> list[int]:
    """Return the frames of one clip.

    Consecutive sampling takes every `frame_stride`-th frame from an offset on. Uniform sampling cuts the video into
    ``clip_length / 4`` equal segments and takes four neighbouring frames from each, at an offset of their own.

    Args:
        num_frames: Frames of the video, at least 1.
        clip_length: Frames of the clip.
        sampling: `"consecutive"` or `"uniform"`.
        offset: Chooses an offset among the possible ones; at random in training, `spaced_offset` in evaluation.
        frame_stride: Step between the frames of a consecutive clip.
        short_video: What follows the last frame of a video that is too short: its first frame again (`"loop"`), or the
            last one repeated (`"pad"`).

    Returns:
        `clip_length` frame numbers from 0, ascending but for loops.

    Raises:
        ValueError: If a length or stride is not positive, or uniform sampling gets a length that four does not divide.

    Example:
        >>> clip_indices(100, 8, sampling="uniform", offset=spaced_offset(0, 1))
        [23, 24, 25, 26, 73, 74, 75, 76]
    """
    if num_frames < 1 or clip_length < 1 or frame_stride < 1:
        raise ValueError(
            "`num_frames`, `clip_length` and `frame_stride` must be positive, got "
            f"{num_frames}, {clip_length} and {frame_stride}."
        )
    if sampling == "consecutive":
        span = (clip_length - 1) * frame_stride + 1
        start = offset(max(num_frames - span, 0))
        indices = [start + step * frame_stride for step in range(clip_length)]
    else:
        if clip_length % SEGMENT_LENGTH:
            raise ValueError(
                f"`clip_length` must be a multiple of {SEGMENT_LENGTH} for uniform sampling, got {clip_length}."
            )
        num_segments = clip_length // SEGMENT_LENGTH
        indices = []
        for segment in range(num_segments):
            begin = segment * num_frames // num_segments
            end = (segment + 1) * num_frames // num_segments
            start = begin + offset(max(end - begin - SEGMENT_LENGTH, 0))
            indices += range(start, start + SEGMENT_LENGTH)
    if short_video == "loop":
        return [index % num_frames for index in indices]
    return [min(index, num_frames - 1) for index in indices]


def spaced_offset(view: int, num_views: int) -> Offset:
    """Return a choice of evenly spaced offsets: the middle for one view, from first to last for several.

    Args:
        view: Number of the view, from 0.
        num_views: How many views there are.

    Example:
        >>> [spaced_offset(view, 3)(10) for view in range(3)], spaced_offset(0, 1)(10)
        ([0, 5, 10], 5)
    """
    if not 0 <= view < num_views:
        raise ValueError(f"`view` must be one of {num_views} views counted from 0, got {view}.")
    if num_views == 1:
        return lambda last: last // 2
    return lambda last: (2 * view * last + num_views - 1) // (2 * (num_views - 1))
