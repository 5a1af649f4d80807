import shutil
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from lightning_opplan.data.decoding import VideoError, count_frames, decode_frames


def test_frames_are_exact_and_in_order(tmp_path, write_video):
    file = write_video(tmp_path / "a b'ü.mp4", num_frames=20)
    frames = decode_frames(file)
    assert frames.shape == (20, 3, 24, 32)
    assert frames.dtype == torch.uint8
    assert [int(frame.unique()) for frame in frames] == list(range(20))


def test_some_frames_in_any_order_with_repeats(tmp_path, write_video):
    file = write_video(tmp_path / "v.mp4")
    assert [int(frame.unique()) for frame in decode_frames(file, [7, 2, 2, 19])] == [7, 2, 2, 19]


def test_count(tmp_path, write_video):
    assert count_frames(write_video(tmp_path / "v.mp4", num_frames=9)) == 9


def test_b_frames_come_in_the_order_they_are_shown(tmp_path):
    """Old AVI files with B-frames carry timestamps that do not ascend."""
    file = tmp_path / "b.avi"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25), options={"bf": "2", "qscale": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(16):
            picture = np.full((64, 64, 3), 10 + 14 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    means = decode_frames(file).float().mean((1, 2, 3))
    assert len(means) == 16
    assert (means.diff() > 0).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "InvalidDataError"), (b"not a video at all" * 40, "InvalidDataError"), (None, "there is no such file")],
    ids=["empty", "text", "missing"],
)
def test_files_that_are_no_video_are_named(tmp_path, content, reason):
    file = tmp_path / "broken.mp4"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(VideoError, match=f"broken.mp4: {reason}"):
        count_frames(file)


def test_audio_alone_is_no_video(tmp_path):
    file = tmp_path / "a.wav"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="there is no video stream"):
        decode_frames(file)


def test_frame_beyond_the_end_is_named(tmp_path, write_video):
    with pytest.raises(VideoError, match="frame 30 was asked for, but there are only 20"):
        decode_frames(write_video(tmp_path / "v.mp4"), [3, 30])


@pytest.mark.parametrize("name", ["decord/video_90.mov", "decord/video_270.mov", "torchcodec/nasa_13013_rotated.mp4"])
def test_rotated_videos_stand_upright_as_in_ffmpeg(real_data, name, tmp_path):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    file = real_data / "decoder" / name
    frames = decode_frames(file)
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-vsync", "0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = (
        torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(-1, *frames.shape[2:], 3).permute(0, 3, 1, 2)
    )
    assert len(frames) == len(expected)
    assert (frames.int() - expected.int()).abs().float().mean() < 2


@pytest.mark.parametrize("name", ["chunk_out_of_range.mp4", "short-cenc.mp4", "no_timescale.mp4"])
def test_damaged_files_raise_the_named_error(real_data, name):
    with pytest.raises(VideoError, match=name):
        count_frames(real_data / "decoder" / "mp4parse" / name)
