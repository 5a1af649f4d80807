import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from lightning_opplan.cli import main
from lightning_opplan.data.flow import unquantised
from tests.helpers.scripted import PROJECT

STEP = 2
"""Pixels that the pattern moves to the right from frame to frame."""


def write_moving(file, num_frames, seed):
    """A random pattern that moves to the right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 24), dtype=np.uint8)
    pattern = np.array(Image.fromarray(coarse).resize((192, 48), Image.Resampling.BICUBIC))
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"level": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for number in range(num_frames):
            left = 100 - STEP * number
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pattern[:, left : left + 64]), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def written(tmp_path, each, num_frames):
    """So many videos for each class and split, and the words of the command."""
    for split in ("train", "test"):
        for label in ("jump", "run"):
            for number in range(each):
                write_moving(tmp_path / "set" / split / label / f"{number}.mkv", num_frames, number)
    return [
        "flow", "--config", str(PROJECT / "configs" / "demo.yaml"), "--data.class_path", "VideoDataModule",
        "--data.init_args.root", str(tmp_path / "set"), "--data.init_args.flow_dir", str(tmp_path / "flow"),
        "--num_processes", "2",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_words_of_pytest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["opplan"])


@pytest.fixture
def words(tmp_path):
    """Four videos of four frames, in this process."""
    return [*written(tmp_path, 1, 4), "--num_processes", "1"]


@pytest.mark.slow
def test_flow_is_announced_written_and_checked(tmp_path, words, capsys):
    main(words)
    out = capsys.readouterr().out
    assert f"The flow of 4 of 4 videos is to be written to {tmp_path / 'flow'}: 12 pairs, about " in out
    assert "The flow of 4 videos is in" in out
    folder = tmp_path / "flow" / "test" / "run" / "0"
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        f"{a}_{n:05d}.jpg" for a in "xy" for n in range(1, 4)
    )
    right, down = (unquantised(np.array(Image.open(folder / f"{axis}_00002.jpg"))) for axis in "xy")
    assert np.median(right) == pytest.approx(STEP, abs=0.2)
    assert np.median(down) == pytest.approx(0, abs=0.2)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "flow").rglob("*.jpg")}
    main(words)
    assert "The flow of 4 videos is in" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "flow").rglob("*.jpg")}


@pytest.mark.slow
def test_a_kill_loses_at_most_the_videos_at_work(tmp_path, capsys):
    words = written(tmp_path, 3, 6)
    command = [sys.executable, "-m", "lightning_opplan", *words]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        lines = tmp_path / "flow" / "flow.jsonl"
        deadline = time.monotonic() + 400
        while not (lines.exists() and lines.read_text().count("\n") >= 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()  # the parent alone: its processes have to notice
    noted = lines.read_text().count("\n")
    assert 2 <= noted < 12
    with lines.open("a") as stream:
        stream.write('{"name": "half')
    main(words)
    assert lines.read_text().count("\n") == 12
    assert "The flow of 12 videos is in" in capsys.readouterr().out
    assert not list((tmp_path / "flow").rglob("*.tmp"))
    assert not orphans(str(tmp_path))


def orphans(word):
    """Processes that still have a word in their command line, this one apart."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    line = stream.read().decode(errors="ignore")
            except OSError:
                continue
            if word in line and "spawn_main" in line:
                found.append((entry, line))
                os.kill(int(entry), signal.SIGKILL)
    return found


@pytest.mark.slow
def test_damage_is_named(tmp_path, words, capsys):
    main(words)
    (tmp_path / "flow" / "train" / "jump" / "0" / "x_00002.jpg").write_bytes(b"junk")
    with pytest.raises(SystemExit):
        main(words)
    assert f"{tmp_path / 'flow'}: the flow of train/jump/0 was damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_wrong_use_is_named(tmp_path, words, capsys):
    main(words)
    capsys.readouterr()
    for more, sentence in (
        (["--bound", "10"], "`flow_dir` must be a folder for this flow, got"),
        (["--bound", "0"], "`bound` must be positive, got 0.0."),
        (["--data.init_args.flow_dir", "null"], "`data.flow_dir` must be the folder to write optical flow to"),
    ):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert sentence in capsys.readouterr().err
    write_moving(tmp_path / "set" / "train" / "jump" / "0.avi", 3, 0)
    with pytest.raises(SystemExit):
        main(words)
    assert "`root` must hold no two videos that differ by their suffix alone" in capsys.readouterr().err


@pytest.mark.slow
def test_a_single_frame_has_no_flow(tmp_path, words, capsys):
    write_moving(tmp_path / "set" / "train" / "jump" / "7.mkv", 1, 0)
    with pytest.raises(SystemExit):
        main(words)
    assert "7: the video has one frame, and no flow" in capsys.readouterr().err
    main([*words, "--data.init_args.on_error", "skip"])
    out = capsys.readouterr().out
    assert "Left out: " in out
    assert "The flow of 4 videos is in" in out


@pytest.mark.parametrize("is_new", [True, False], ids=["foreign flow", "foreign files"])
def test_what_somebody_else_has_written_is_never_deleted(tmp_path, words, capsys, is_new):
    place = tmp_path / "flow" / "train" / "jump" / "0"
    place.mkdir(parents=True)
    (place / "x_00001.jpg").write_bytes(b"of another tool")
    if not is_new:
        (place / "img_00001.jpg").write_bytes(b"a frame")
        settings = {"format": 1, "method": "tv_l1", "short_side": 256, "bound": 20.0}
        (tmp_path / "flow" / "flow.json").write_text(json.dumps(settings))
    for _ in range(2):
        with pytest.raises(SystemExit):
            main(words)
        assert "must be a folder that `opplan flow` alone writes to" in capsys.readouterr().err
    assert (place / "x_00001.jpg").read_bytes() == b"of another tool"


@pytest.mark.slow
def test_only_what_is_damaged_is_found_again(tmp_path, words, capsys):
    main(words)
    folder = tmp_path / "flow"
    kept = folder / "test" / "run" / "0" / "x_00001.jpg"
    before = kept.stat().st_mtime_ns
    (folder / "train" / "jump" / "0" / "x_00001.jpg").write_bytes(b"junk")
    with pytest.raises(SystemExit):
        main(words)
    assert "the same command finds it again" in capsys.readouterr().err
    main(words)
    assert "4 videos" in capsys.readouterr().out
    assert kept.stat().st_mtime_ns == before


def test_a_command_that_failed_has_not_taken_the_folder_over(tmp_path, words, capsys):
    foreign = tmp_path / "flow" / "train" / "jump" / "0" / "x_00001.jpg"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"of another tool")
    (tmp_path / "set" / "train" / "run" / "1.mkv").write_bytes(b"junk")
    with pytest.raises(SystemExit):
        main(words)
    (tmp_path / "set" / "train" / "run" / "1.mkv").unlink()
    with pytest.raises(SystemExit):
        main(words)
    assert "must be a folder that `opplan flow` alone writes to" in capsys.readouterr().err
    assert foreign.read_bytes() == b"of another tool"
