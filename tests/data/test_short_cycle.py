import json
import os
import subprocess
import sys

import pytest
import torch
from torch.utils.data import SequentialSampler

from lightning_opplan.data import VideoDataModule
from lightning_opplan.data.short_cycle import SHORT_CYCLE, ShortCycleBatches
from tests.helpers.scripted import PROJECT


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 12, 13, 14, 15, 28, 30])
def test_batches_of_four_two_and_one_times_the_size_in_turn(number, drop_last):
    batches = ShortCycleBatches(SequentialSampler(range(number)), 2, drop_last)
    drawn = list(batches)
    assert len(batches) == len(drawn)
    indices = [index for batch in drawn for index, _ in batch]
    assert indices == list(range(len(indices)))
    assert len(indices) == number or drop_last
    for place, batch in enumerate(drawn):
        assert {side for _, side in batch} == {SHORT_CYCLE[place % 3]}
        assert len(batch) == (8, 4, 2)[place % 3] or (place == len(drawn) - 1 and not drop_last)


def test_training_clips_change_their_size(tmp_path, write_video):
    for label in ("jump", "run"):
        for number in range(16):
            write_video(tmp_path / label / f"{number}.mkv", num_frames=6)
    data = VideoDataModule(
        root=str(tmp_path), clip_length=4, crop_size=16, short_side=(20, 24), batch_size=2, short_cycle=True
    )
    data.setup("fit")
    shapes = [tuple(clips.shape) for clips, _ in data.train_dataloader()]
    assert shapes[:4] == [(8, 3, 4, 8, 8), (4, 3, 4, 11, 11), (2, 3, 4, 16, 16), (8, 3, 4, 8, 8)]
    assert len(shapes) == len(data.train_dataloader())
    assert {tuple(clips.shape[1:]) for clips, _ in data.val_dataloader()} == {(3, 4, 16, 16)}
    torch.manual_seed(0)
    first = next(iter(data.train_dataloader()))[0]
    torch.manual_seed(0)
    assert torch.equal(next(iter(data.train_dataloader()))[0], first)


@pytest.mark.process
def test_two_processes_have_clips_of_one_size_at_a_time(tmp_path, write_video):
    """Each has its half of the videos, in the same cycle, or the larger clips of one would be waited for."""
    for label in ("jump", "run"):
        for number in range(18):
            write_video(tmp_path / "set" / label / f"{number}.mkv", num_frames=16)
    data = {
        "root": "set", "clip_length": 16, "crop_size": 64, "short_side": [64, 72], "batch_size": 2,
        "short_cycle": True, "val_size": 4, "eval_clip_length": 16,
    }  # fmt: skip
    config = {
        "model": {
            "class_path": "lightning_opplan.VideoClassifier",
            "init_args": {"network": "dg_p3d_tiny", "num_classes": 2},
        },
        "data": {"class_path": "lightning_opplan.VideoDataModule", "init_args": data},
        "trainer": {
            "accelerator": "cpu", "devices": 2, "strategy": "ddp", "max_epochs": 2, "logger": False,
            "callbacks": [{"class_path": "tests.helpers.shapes.WriteShapes"}],
        },
    }  # fmt: skip
    (tmp_path / "fit.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "lightning_opplan", "fit", "--config", "fit.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    epoch = [(8, 32), (4, 45), (2, 64)]  # 32 for training, 16 for each
    expected = [f"{number} {clips} {side}" for number in range(2) for clips, side in epoch]
    assert [(tmp_path / f"shapes-{rank}.txt").read_text().splitlines() for rank in range(2)] == [expected, expected]
