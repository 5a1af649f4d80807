"""Decode with torchcodec in place of PyAV."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.indexing import FrameIndex
from lightning_opplan.data.transforms import scaled_size
from lightning_opplan.data.video_files import VideoError

__all__ = ["decode_frames_torchcodec"]


def decode_frames_torchcodec(
    path: str, indices: Sequence[int], *, index: FrameIndex, short_side: int | None = None
) -> Tensor:
    """Decode some frames of a video, see `decode_frames`; PyAV does it where timestamps do not identify frames.

    torchcodec finds frames by their timestamps. Scaling is bilinear and on RGB, so pixels differ a little from PyAV's.

    Raises:
        ModuleNotFoundError: If torchcodec is not installed.
        VideoError: If a frame cannot be decoded.
    """
    decoders = _torchcodec()
    if index.times is None:
        return decode_frames(path, indices, index=index, short_side=short_side)
    transforms = None
    if short_side is not None:
        transforms = [decoders.transforms.Resize(scaled_size(index.height, index.width, short_side))]
    try:
        decoder = decoders.decoders.VideoDecoder(path, num_ffmpeg_threads=1, transforms=transforms)
        if decoder.metadata.num_frames != index.num_frames:
            return decode_frames(path, indices, index=index, short_side=short_side)
        frames: Tensor = decoder.get_frames_at(list(indices)).data
    except (RuntimeError, ValueError, IndexError) as error:
        raise VideoError(path, f"torchcodec: {str(error).splitlines()[0]}") from None
    return frames


def _torchcodec() -> Any:
    try:
        import torchcodec.decoders
        import torchcodec.transforms
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "`decoder` 'torchcodec' must be installed: `pip install 'lightning-opplan[torchcodec]'`."
        ) from None
    except RuntimeError as error:  # what torchcodec raises where FFmpeg's libraries are missing
        raise ModuleNotFoundError(
            "`decoder` 'torchcodec' must find FFmpeg's shared libraries, which come apart from it: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return torchcodec
