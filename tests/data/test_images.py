import pytest
import torch
from PIL import Image

from lightning_opplan.data.images import index_pictures, read_pictures
from lightning_opplan.data.video_files import VideoError


@pytest.fixture
def folder(tmp_path):
    for number in range(1, 13):
        Image.new("RGB", (20, 10), (number,) * 3).save(tmp_path / f"{number:05d}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_frames_in_the_order_of_their_names(folder):
    index = index_pictures(str(folder))
    assert (index.num_frames, index.height, index.width) == (12, 10, 20)
    frames = read_pictures(str(folder), [11, 0, 0, 9])
    assert frames.shape == (4, 3, 10, 20)
    assert frames.dtype == torch.uint8
    assert frames[:, 0, 0, 0].tolist() == [12, 1, 1, 10]


def test_grey_pictures_become_colours(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "1.jpg")
    assert read_pictures(str(tmp_path), [0]).shape == (1, 3, 4, 4)


def test_broken_folders_are_named(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(VideoError, match=r"empty\d*: there is no picture in the folder"):
        index_pictures(str(empty))
    with pytest.raises(VideoError, match="frame 12 was asked for, but there are only 12"):
        read_pictures(str(folder), [12])
    (folder / "00003.png").write_bytes(b"junk")
    with pytest.raises(VideoError, match=r": 00003.png is not a picture") as caught:
        read_pictures(str(folder), [0, 2])
    assert caught.value.path == str(folder)  # the video, which is to be left out
    whole = (folder / "00004.png").read_bytes()
    (folder / "00004.png").write_bytes(whole[:50])
    with pytest.raises(VideoError, match=r": 00004.png cannot be read"):
        read_pictures(str(folder), [3])
    Image.new("RGB", (8, 8)).save(folder / "00005.png")
    with pytest.raises(VideoError, match="the frames change their size"):
        read_pictures(str(folder), [0, 4])


def test_numbers_without_zeros_are_in_the_order_of_numbers(tmp_path):
    for number in range(1, 13):
        Image.new("RGB", (4, 4), (number,) * 3).save(tmp_path / f"frame{number}.png")
    (tmp_path / "._frame1.png").write_bytes(b"left by an archive")
    assert read_pictures(str(tmp_path), range(12))[:, 0, 0, 0].tolist() == list(range(1, 13))
