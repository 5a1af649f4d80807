import json
import os
import signal
import time

import numpy as np
import pytest
import torch

from lightning_opplan.data.frames import pixel_files
from lightning_opplan.data.frames.pixel_files import PixelCache, write_pixels
from lightning_opplan.data.video_files import VideoError
from tests.helpers import forked


def frames(value, num_frames=3):
    return torch.full((num_frames, 3, 4, 6), value, dtype=torch.uint8)


def equal(pixels, expected):
    return np.array_equal(pixels, expected.permute(0, 2, 3, 1))


def write(folder, names, **options):
    jobs = {name: (lambda name=name: frames(int(name))) for name in names}
    return list(write_pixels(folder, jobs, short_side=4, **options))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_pixels_come_back(tmp_path, num_threads):
    written = write(tmp_path / "c", "0123456789", num_threads=num_threads)
    assert written == [(name, None) for name in "0123456789"]
    cache = PixelCache(tmp_path / "c")
    for name in "0123456789":
        assert equal(cache.pixels(name), frames(int(name)))
    assert cache.pixels("x") is None
    assert not any(damaged for _, damaged in cache.damaged())


def test_large_sets_take_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_files, "_SHARD_BYTES", 500)  # two videos of 216 bytes
    write(tmp_path, "01234")
    assert sorted(file.name for file in tmp_path.glob("*.bin")) == [f"pixels-00{n}.bin" for n in range(3)]
    assert all(equal(PixelCache(tmp_path).pixels(name), frames(int(name))) for name in "01234")


def test_writing_goes_on_where_it_stopped(tmp_path):
    write(tmp_path, "01")
    with (tmp_path / "index.jsonl").open("a") as stream:
        stream.write('{"name": "2", "sha')  # torn off
    with (tmp_path / "pixels-000.bin").open("ab") as stream:
        stream.write(b"half a video")
    assert write(tmp_path, "0123") == [("2", None), ("3", None)]
    cache = PixelCache(tmp_path)
    assert all(equal(cache.pixels(name), frames(int(name))) for name in "0123")
    assert os.path.getsize(tmp_path / "pixels-000.bin") == 4 * 216


def test_broken_video_is_left_out(tmp_path):
    def fail():
        raise VideoError("v", "no")

    results = dict(write_pixels(tmp_path, {"a": fail, "b": lambda: frames(1)}, short_side=4))
    assert str(results["a"]) == "v: no"
    assert list(PixelCache(tmp_path).videos) == ["b"]


def test_damage_is_found(tmp_path):
    write(tmp_path, "012")
    with (tmp_path / "pixels-000.bin").open("r+b") as stream:
        stream.seek(300)
        stream.write(b"\xff")
    assert dict(PixelCache(tmp_path).damaged()) == {"0": False, "1": True, "2": False}
    with (tmp_path / "pixels-000.bin").open("r+b") as stream:
        stream.truncate(500)
    assert dict(PixelCache(tmp_path).damaged()) == {"0": False, "1": True, "2": True}
    with pytest.raises(VideoError, match=r"pixels-000.bin: it is shorter than it was: run `opplan cache`"):
        PixelCache(tmp_path).pixels("2")


def test_wrong_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="`cache_dir` must be a folder of decoded frames, got .*: write it"):
        PixelCache(tmp_path)
    write(tmp_path, "0")
    with pytest.raises(ValueError, match=r"`short_side` must be that of the frames in .* \(4\), got 8"):
        list(write_pixels(tmp_path, {}, short_side=8))
    (tmp_path / "cache.json").write_text(json.dumps({"format": 0, "short_side": 4}))
    with pytest.raises(ValueError, match="`cache_dir` must be written by this version, got .* in format 0"):
        PixelCache(tmp_path)


def test_one_writer_at_a_time(tmp_path):
    writing = write_pixels(tmp_path, {"0": lambda: frames(0), "1": lambda: frames(1)}, short_side=4)
    next(writing)
    with pytest.raises(BlockingIOError, match="`cache_dir` must have one writer at a time, got .*, which has one"):
        write(tmp_path, "01")
    assert list(writing) == [("1", None)]
    assert write(tmp_path, "012") == [("2", None)]


def test_killed_at_any_moment_nothing_is_lost(tmp_path):
    jobs = {str(n): (lambda n=n: torch.full((50, 3, 64, 64), n, dtype=torch.uint8)) for n in range(200)}

    def write_all():
        for _ in write_pixels(tmp_path, jobs, short_side=64, num_threads=2):
            pass

    for delay in (0.02, 0.1, 0.3):
        writer = forked.start(write_all)
        time.sleep(delay)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    assert forked.run(write_all) == 0
    cache = PixelCache(tmp_path)
    assert len(cache.videos) == 200
    assert not any(damaged for _, damaged in cache.damaged())
    assert all(int(cache.pixels(str(number))[7, 2, 3, 1]) == number for number in range(200))
    assert os.path.getsize(tmp_path / "pixels-000.bin") == 200 * 50 * 3 * 64 * 64


def test_a_folder_knows_what_it_holds_but_for_those_of_earlier_versions(tmp_path):
    PixelCache.begin(tmp_path / "c", short_side=8, modality="flow").check("flow")
    with pytest.raises(ValueError, match="must be a folder for rgb, got .* with flow"):
        PixelCache.begin(tmp_path / "c", short_side=8)
    (tmp_path / "c" / "cache.json").write_text(json.dumps({"format": 1, "short_side": 8}))
    PixelCache(tmp_path / "c").check("flow")
