import os
import random
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from lightning_opplan.data import decoding
from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.indexing import build_index
from lightning_opplan.data.video_files import VideoError


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
    assert build_index(write_video(tmp_path / "v.mp4", num_frames=9)).num_frames == 9


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
        build_index(file)


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


def raw_frames(file, shape):
    """What the `ffmpeg` program makes of a file."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-vsync", "0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(-1, *shape, 3).permute(0, 3, 1, 2)


BROKEN = {
    "derived/audio_only.m4a": "there is no video stream",
    "derived/empty.mp4": "InvalidDataError",
    "derived/text_not_video.mp4": "InvalidDataError",
    "mp4parse/bipbop_nonfragment_header.mp4": "no frame could be decoded",
    "mp4parse/chunk_out_of_range.mp4": "InvalidDataError",
    "mp4parse/invalid_userdata.mp4": "no frame could be decoded",
    "mp4parse/no_timescale.mp4": "InvalidDataError",  # after eight frames
    "mp4parse/short-cenc.mp4": "InvalidDataError",
}


@pytest.mark.slow
def test_every_file_is_decoded_as_by_ffmpeg_or_named(real_data):
    """Bit for bit, in order and number; random access gives the same frames as reading through."""
    decoded, chosen = 0, random.Random(0)
    for file in sorted(path for path in (real_data / "decoder").rglob("*") if path.is_file()):
        name = str(file.relative_to(real_data / "decoder"))
        if name in BROKEN:
            with pytest.raises(VideoError, match=f"{file.name}: {BROKEN[name]}"):
                decode_frames(file, index=build_index(file))
            continue
        index, frames = build_index(file), decode_frames(file)
        assert frames.shape == (index.num_frames, 3, index.height, index.width), name
        difference = (frames.int() - raw_frames(file, (index.height, index.width)).int()).abs().max()
        # Old versions of FFmpeg compute the inverse transform of Xvid otherwise.
        assert difference <= (1 if "xvid" in name else 0), name
        for _ in range(12):
            start = chosen.randrange(index.num_frames)
            wanted = [*range(start, min(start + 4, index.num_frames)), *chosen.choices(range(index.num_frames), k=4)]
            assert torch.equal(decode_frames(file, wanted, index=index), frames[wanted]), (name, wanted)
        decoded += 1
    assert decoded == 45


def test_scaling_is_that_of_ffmpeg(real_data):
    file = real_data / "decoder" / "mmaction2" / "demo.mp4"
    frames = decode_frames(file, [0, 100], index=build_index(file), short_side=128)
    assert frames.shape == (2, 3, 128, 170)
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-vf", "scale=170:128:flags=bilinear", "-vsync", "0"]
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    expected = torch.frombuffer(bytearray(raw.stdout), dtype=torch.uint8).reshape(-1, 128, 170, 3).permute(0, 3, 1, 2)
    assert (frames.int() - expected[[0, 100]].int()).abs().max() <= 1


def test_only_what_is_needed_is_decoded(tmp_path, write_video, monkeypatch):
    file = write_video(tmp_path / "v.mp4", num_frames=60)  # a key frame every six
    index = build_index(file)
    read = []
    packets = decoding.packets_of
    monkeypatch.setattr(decoding, "packets_of", lambda *a: (read.append(p) or p for p in packets(*a)))
    assert [int(frame.unique()) for frame in decode_frames(file, [57, 3], index=index)] == [57, 3]
    assert len(read) <= 16


def test_wrong_index_does_not_give_wrong_frames(tmp_path, write_video):
    file = write_video(tmp_path / "v.mp4", num_frames=60)
    index = build_index(file)
    shifted = replace(index, times=index.times + 1, starts=index.starts + 1)
    assert [int(frame.unique()) for frame in decode_frames(file, [31], index=shifted)] == [31]


@pytest.mark.parametrize(
    "name", ["-a.mp4", "a b.mp4", 'it\'s "q".mp4', "видео.mp4", "http:x.mp4", "%d.mp4", "a#b?c.mp4"]
)
def test_odd_names(tmp_path, write_video, monkeypatch, name):
    write_video(tmp_path / name, num_frames=5)
    monkeypatch.chdir(tmp_path)
    assert build_index(name).num_frames == len(decode_frames(name)) == 5


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="pipe.mp4: it is not a file"):
        build_index(tmp_path / "pipe.mp4")


def test_no_file_stays_open(tmp_path, write_video):
    file = write_video(tmp_path / "v.mp4", num_frames=3)
    (tmp_path / "broken.mp4").write_bytes(file.read_bytes()[:600])
    index = build_index(file)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        decode_frames(file, [2], index=index)
        with pytest.raises(VideoError):
            build_index(tmp_path / "broken.mp4")
    assert len(os.listdir("/proc/self/fd")) == before


def test_error_of_a_worker_comes_back_as_one_sentence():
    """A DataLoader makes the error anew from the whole traceback of its worker."""
    error = VideoError(
        "Caught VideoError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  …\n"
        "lightning_opplan.data.decoding.VideoError: /a/b.mp4: no frame: none\n"
    )
    assert (error.path, error.reason) == ("/a/b.mp4", "no frame: none")
