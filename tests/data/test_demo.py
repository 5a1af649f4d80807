import multiprocessing
from functools import partial

import numpy as np
import pytest

from lightning_opplan.data.decoding import decode_frames
from lightning_opplan.data.demo import CLASSES, DemoDataModule, draw_video, write_demo_videos


@pytest.mark.parametrize("name", CLASSES)
def test_drawings_are_seeded_and_fit_the_description(name):
    frames = [np.stack(list(draw_video(name, np.random.default_rng(seed)))) for seed in (1, 1, 2)]
    assert frames[0].shape[1:] == (32, 32, 3)
    assert 104 <= len(frames[0]) <= 136
    assert np.array_equal(frames[0], frames[1])
    assert frames[0].shape != frames[2].shape or not np.array_equal(frames[0], frames[2])


def test_videos_are_real_files_that_decode_to_what_was_drawn(tmp_path):
    folder = write_demo_videos(tmp_path / "v", num_train=1, num_test=1, seed=5)
    files = sorted(folder.rglob("*.mp4"))
    assert len(files) == 2 * len(CLASSES)
    decoded = decode_frames(folder / "train" / CLASSES[0] / "000.mp4").permute(0, 2, 3, 1).numpy()
    generator = np.random.default_rng([5, 0, 0, 0])
    generator.choice([15, 24, 25, 30])  # the frame rate
    drawn = np.stack(list(draw_video(CLASSES[0], generator)))
    assert decoded.shape == drawn.shape
    assert np.abs(decoded.astype(int) - drawn).mean() < 12  # compression blurs the noise


def test_existing_videos_are_kept(tmp_path):
    folder = write_demo_videos(tmp_path / "v", num_train=1, num_test=1, seed=0)
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*.mp4")}
    DemoDataModule(str(folder), num_train=1, num_test=1).prepare_data()
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.mp4")} == times


def test_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="`root` must be a new folder, or one with the same demo videos"):
        write_demo_videos(tmp_path, num_train=1, num_test=1, seed=0)
    assert (tmp_path / "mine.txt").exists()


def test_half_drawn_videos_are_drawn_again(tmp_path):
    (tmp_path / "v.unfinished" / "train").mkdir(parents=True)
    folder = write_demo_videos(tmp_path / "v", num_train=1, num_test=1, seed=0)
    assert not (tmp_path / "v.unfinished").exists()
    assert (folder / "recipe.json").exists()


def test_processes_that_draw_at_once_get_the_same_videos(tmp_path):
    draw = partial(write_demo_videos, tmp_path / "videos", num_train=1, num_test=1, seed=0)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=draw) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["videos"]
