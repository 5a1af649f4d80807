import sqlite3

import numpy as np
import pytest

from lightning_opplan.data.frames import memory
from lightning_opplan.data.frames.index_database import IndexCache, cache_folder
from lightning_opplan.data.indexing import FrameIndex

KEY = ("/a/b.mp4", 1, 2)


def test_indices_come_back_as_they_were(tmp_path):
    times = np.array([-1024, 0, 512, 2**40], np.int64)
    index = FrameIndex(num_frames=4, height=3, width=2, times=times, starts=times[:2])
    bare = FrameIndex(num_frames=9, height=3, width=2)
    IndexCache(tmp_path / "sub" / "i.sqlite").write({KEY: index, ("/c", 5, 6): bare})
    found = IndexCache(tmp_path / "sub" / "i.sqlite").read([KEY, ("/c", 5, 6), ("/d", 1, 1)])
    assert set(found) == {KEY, ("/c", 5, 6)}
    assert found[KEY].num_frames == 4
    np.testing.assert_array_equal(found[KEY].times, times)
    np.testing.assert_array_equal(found[KEY].starts, times[:2])
    assert found["/c", 5, 6].times is None


@pytest.mark.parametrize("key", [("/a/b.mp4", 9, 2), ("/a/b.mp4", 1, 9)], ids=["time", "size"])
def test_changed_file_is_not_known(tmp_path, key):
    cache = IndexCache(tmp_path / "i.sqlite")
    cache.write({KEY: FrameIndex(num_frames=4, height=3, width=2)})
    assert cache.read([key]) == {}
    cache.write({key: FrameIndex(num_frames=5, height=3, width=2)})
    assert cache.read([key])[key].num_frames == 5


def test_broken_cache_is_said_once_and_does_without(tmp_path):
    (tmp_path / "i.sqlite").write_bytes(b"no database" * 100)
    cache = IndexCache(tmp_path / "i.sqlite")
    with pytest.warns(UserWarning, match="Indices of videos are not kept for the next start: .*i.sqlite"):
        assert cache.read([KEY]) == {}
    cache.write({KEY: FrameIndex(num_frames=4, height=3, width=2)})  # no second word: warnings are errors here


def test_files_are_read_through_once_over_all_processes(tmp_path, write_video, monkeypatch):
    paths = [str(write_video(tmp_path / f"{number}.mp4")) for number in range(3)]
    assert memory.scan(paths) == []
    with sqlite3.connect(cache_folder() / "videos.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM frames_1").fetchone() == (3,)
    connection.close()
    memory.forget()  # as in the next process
    monkeypatch.setattr(memory, "build_index", None)
    assert memory.scan(paths) == []
    assert memory.frame_index(paths[0]).num_frames == 20
