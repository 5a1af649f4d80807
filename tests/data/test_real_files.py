"""Video files as cameras and broken downloads leave them."""

import struct

import av
import numpy as np
import pytest
import torch

from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.indexing import build_index
from lightning_opplan.data.video_files import VideoError


def write(file, num_frames=60, size=(48, 32), codec="mpeg4", rate=25, container=None):
    """Frames that are brighter to the right, darker to the bottom, and marked at the top left."""
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picture = np.stack([columns * 4, 255 - rows * 6, 60 + 0 * rows], 2).astype(np.uint8)
    picture[:8, :8] = 255
    with av.open(str(file), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 400_000
        noise = np.random.default_rng(0)
        for _ in range(num_frames):
            moved = np.clip(picture + noise.integers(-20, 20, picture.shape), 0, 255).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        output.mux(stream.encode())
    return file


MATRICES = {
    "as it is": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "upside down": (1, 0, 0, -1),
    "turned by half": (-1, 0, 0, -1), "clockwise": (0, 1, -1, 0), "counter-clockwise": (0, -1, 1, 0),
    "transposed": (0, 1, 1, 0),
    "transposed otherwise": (0, -1, -1, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", list(MATRICES))
def test_display_matrix_is_obeyed_mirrors_and_all(tmp_path, name):
    """A pixel (x, y) is to be seen at (a·x + c·y, b·x + d·y), says the MP4 standard."""
    file = write(tmp_path / "v.mp4", num_frames=2)
    (before,) = decode_frames(file, [0])
    content = bytearray(file.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d = MATRICES[name]
    fixed = [value * 65536 for value in (a, b)] + [0] + [value * 65536 for value in (c, d)] + [0, 0, 0, 1 << 30]
    content[place : place + 36] = struct.pack(">9i", *fixed)
    file.write_bytes(content)
    (after,) = decode_frames(file, [0])
    _, height, width = before.shape
    expected = torch.empty(3, *((width, height) if a == 0 else (height, width)), dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = a * columns + c * rows, b * columns + d * rows
    expected[:, y - y.min(), x - x.min()] = before
    assert torch.equal(after, expected)
    index = build_index(file)
    assert (index.height, index.width) == tuple(expected.shape[1:])
    assert torch.equal(decode_frames(file, [0], index=index)[0], after)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.avi", "mpeg4"), ("v.mkv", "mpeg4"), ("v.mkv", "libx264"), ("v.webm", "libvpx"), ("v.ts", "mpeg2video")],
    ids=["avi", "mkv, frames", "mkv, packets", "webm", "ts"],
)
def test_file_that_ends_early_is_refused_and_a_whole_one_is_not(tmp_path, name, codec):
    file = write(tmp_path / name, codec=codec)
    assert build_index(file).num_frames >= 58
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 6 // 10 + (1 if name == "v.ts" else 0)])
    with pytest.raises(VideoError, match="it ends (after|within)"):
        build_index(file)


def test_cover_of_a_song_is_no_video(tmp_path):
    file = tmp_path / "song.mp4"
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
    with av.open(str(file), "w") as output:
        sound, cover = output.add_stream("aac", rate=44100), output.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for start in range(0, 4096, 1024):
            samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            samples.sample_rate, samples.pts = 44100, start
            output.mux(sound.encode(samples))
        output.mux(sound.encode())
        output.mux(cover.encode(picture))
    with pytest.raises(VideoError, match="there is no video stream, only the picture of a cover"):
        build_index(file)
