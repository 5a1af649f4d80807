import shutil
import sys
from collections import namedtuple

import pytest

from lightning_opplan.cli import main
from lightning_opplan.data.frames.pixel_files import PixelCache
from tests.helpers.scripted import PROJECT
from tests.helpers.trees import SIZE, ucf101


@pytest.fixture
def words(tmp_path, monkeypatch, write_video):
    monkeypatch.setattr(sys, "argv", ["opplan"])
    (tmp_path / "set").mkdir()
    ucf101(tmp_path / "set", write_video)
    config = str(PROJECT / "configs" / "ucf101.yaml")
    root = str(tmp_path / "set")
    return ["cache", "--config", config, "--data.init_args.root", root, "--model.init_args.weights", "null"]


def test_size_is_announced_and_a_second_run_checks(tmp_path, words, capsys):
    command = [*words, "--data.init_args.cache_dir", str(tmp_path / "px"), "--short_side", "32"]
    main(command)
    num_bytes = 16 * 20 * 32 * int(32 * SIZE[0] / SIZE[1]) * 3  # videos, frames, height, width, colours
    out = capsys.readouterr().out
    assert f"16 of 16 videos are to be written to {tmp_path / 'px'}: {num_bytes / 2**20:.1f} MiB." in out
    assert "16 videos are in" in out
    assert (tmp_path / "px" / "pixels-000.bin").stat().st_size == num_bytes
    assert "Archery/v_Archery_g01_c01.avi" in PixelCache(tmp_path / "px").videos
    main(command)
    assert "0 of 16 videos are to be written" in capsys.readouterr().out


def test_damage_is_named(tmp_path, words, capsys):
    command = [*words, "--data.init_args.cache_dir", str(tmp_path / "px"), "--short_side", "32"]
    main(command)
    with (tmp_path / "px" / "pixels-000.bin").open("r+b") as stream:
        stream.write(b"xyz")
    with pytest.raises(SystemExit):
        main(command)
    assert "px: the frames of Archery/" in capsys.readouterr().err


def test_broken_video_is_left_out_with_a_word(tmp_path, words, capsys):
    broken = tmp_path / "set" / "UCF-101" / "Archery" / "v_Archery_g05_c01.avi"
    broken.write_bytes(b"junk")
    command = [*words, "--data.init_args.cache_dir", str(tmp_path / "px"), "--short_side", "32"]
    main(command)
    assert f"Left out: {broken}: InvalidDataError" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--data.init_args.on_error", "raise"])
    assert f"opplan: {broken}: InvalidDataError" in capsys.readouterr().err


def test_wrong_use_is_named(tmp_path, words, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(words)
    assert "opplan: `data.cache_dir` must be the folder to write decoded frames to" in capsys.readouterr().err
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    with pytest.raises(SystemExit):
        main([*words, "--data.init_args.cache_dir", str(tmp_path / "px")])
    assert "`data.cache_dir` must have room for" in capsys.readouterr().err
