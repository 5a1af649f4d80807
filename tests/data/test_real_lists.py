"""Lists and folders as people leave them."""

import os
import sqlite3

import numpy as np
import pytest
from PIL import Image

from lightning_opplan.data import VideoDataModule
from lightning_opplan.data.frames.index_database import IndexCache
from lightning_opplan.data.images import index_pictures
from lightning_opplan.data.indexing import FrameIndex
from lightning_opplan.data.lists import read_csv, read_folders
from lightning_opplan.data.texts import csv_rows, read_text
from lightning_opplan.data.video_files import VideoError


def listed(folder, text, encoding="utf-8"):
    (folder / "list.csv").write_bytes(text.encode(encoding))
    return read_csv(folder / "list.csv", folder)


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-16", ",")],
    ids=["plain", "Excel, semicolons", "Excel, Unicode text", "UTF-16"],
)
def test_lists_of_excel_are_read(tmp_path, encoding, separator):
    text = "path,label\nä.mp4,größe\n".replace(",", separator)
    assert listed(tmp_path, text, encoding).classes == ("größe",)


def test_other_letters_are_refused_with_the_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"list.csv, line 2: must be UTF-8, got the byte 0xe4 there. Save it as UTF-8"
    ):
        listed(tmp_path, "path,label\nä.mp4,a\n", "latin-1")


def test_cells_may_hold_lines(tmp_path):
    (tmp_path / "a.csv").write_text('path,label\n"a\nb.mp4",x\n')
    assert csv_rows(tmp_path / "a.csv") == [(3, {"path": "a\nb.mp4", "label": "x"})]
    assert read_text(tmp_path / "a.csv").startswith("path")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a.mp4,x,train\na.mp4,x,test\n", "lines 2 and 3: 'a.mp4' must have one split, got two"),
        ("a.mp4,x,train\nb.mp4,y,train\n./a.mp4,y,train\n", "lines 2 and 4: './a.mp4' must have one label, got two"),
        ("a.mp4,,train\n", "line 2: must have a label, got none"),
    ],
    ids=["two splits", "two labels", "no label"],
)
def test_contradictions_are_refused_with_their_lines(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        listed(tmp_path, "path,label,split\n" + rows)


def test_digits_that_are_no_numbers_are_names(tmp_path):
    assert listed(tmp_path, "path,label\na.mp4,10\nb.mp4,²\nc.mp4,9\n").classes == ("10", "9", "²")


def test_files_that_are_no_videos_are_passed_over_and_links_into_nothing_are_not(tmp_path):
    for name in ("a/one.flv", "a/two.3gp", "a/three.ogv", "a/four.m2ts", "a/._one.mp4", "a/.hidden.avi", "a/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    names = [video.name for video in read_folders(tmp_path).splits["train"]]
    assert names == ["a/four.m2ts", "a/gone.mp4", "a/one.flv", "a/three.ogv", "a/two.3gp"]
    with pytest.raises(FileNotFoundError, match="1 of 5 train videos are not below .*gone.mp4"):
        VideoDataModule(str(tmp_path)).without_missing(read_folders(tmp_path))


@pytest.mark.parametrize(("numbers", "missing"), [((1, 2, 4), "00003"), ((0, 3, 2), "00001")])
def test_missing_picture_is_named(tmp_path, numbers, missing):
    for number in numbers:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / f"{number:05d}.jpg")
    with pytest.raises(VideoError, match=f"picture {missing}.jpg is missing"):
        index_pictures(str(tmp_path))


def test_pictures_without_numbers_are_as_they_are(tmp_path):
    for name in ("a1.jpg", "b7.jpg", "c.jpg"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    assert index_pictures(str(tmp_path)).num_frames == 3


def test_class_without_a_training_video_is_refused(tmp_path, write_video):
    write_video(tmp_path / "v.mp4")
    rows = "a.mp4,x,train\nb.mp4,x,val\nc.mp4,y,test\n"
    for name in "abc":
        os.link(tmp_path / "v.mp4", tmp_path / f"{name}.mp4")
    (tmp_path / "list.csv").write_text("path,label,split\n" + rows)
    with pytest.raises(ValueError, match="`root` must have a training video of every class, got none of y"):
        VideoDataModule(str(tmp_path), annotations="list.csv").setup("fit")


def test_most_of_the_training_set_for_validation_is_told(tmp_path, write_video):
    for number in range(6):
        write_video(tmp_path / "a" / f"{number}.mp4", num_frames=3)
    with pytest.warns(UserWarning, match="takes 4 of 6 training videos, as `val_size` says. Set `val_size`"):
        VideoDataModule(str(tmp_path), val_size=4).setup("fit")


def test_locked_database_is_given_up_once(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_opplan.data.frames.index_database._PATIENCE", 0.1)
    cache, key = IndexCache(tmp_path / "indices.sqlite"), ("/a.mp4", 1, 2)
    cache.write({key: FrameIndex(num_frames=3, height=4, width=5)})
    holder = sqlite3.connect(cache.file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.warns(UserWarning, match="Indices of videos are not kept for the next start: .*locked"):
        assert cache.read([key]) == {}
    assert cache.read([key]) == {}  # at once, and without a word
    holder.close()


def test_damaged_entry_is_made_anew(tmp_path):
    cache, keys = IndexCache(tmp_path / "indices.sqlite"), [("/a.mp4", 1, 2), ("/b.mp4", 1, 2)]
    index = FrameIndex(num_frames=2, height=4, width=5, times=np.array([0, 1]), starts=np.array([0]))
    cache.write(dict.fromkeys(keys, index))
    with sqlite3.connect(cache.file) as connection:
        connection.execute("UPDATE frames_1 SET times = x'00ff' WHERE path = ?", (b"/a.mp4",))
    connection.close()
    assert list(cache.read(keys)) == [keys[1]]


def test_a_fault_is_told_with_its_line_in_the_file(tmp_path):
    with pytest.raises(ValueError, match="line 5: must have a label, got none"):
        listed(tmp_path, 'path,label\n"a\nb.mp4",x\n\nc.mp4,\n')
