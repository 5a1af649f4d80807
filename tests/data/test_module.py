import itertools
import re

import pytest
import torch

from lightning_opplan import VideoDataModule
from lightning_opplan.data.decoding import VideoError


@pytest.fixture
def root(tmp_path, write_video):
    for split, count in (("train", 5), ("test", 2)):
        for name in ("left", "right"):
            for number in range(count):
                write_video(tmp_path / split / name / f"{number}.mp4", num_frames=24 + number)
    return tmp_path


def module(root, **options):
    defaults = {"clip_length": 8, "short_side": (24, 28), "crop_size": 24, "batch_size": 4, "val_size": 0.2}
    return VideoDataModule(str(root), **{**defaults, **options})


def grey_values(clip):
    """Frame numbers of a clip, read off its pixels."""
    return [round(value) for value in ((clip[0, :, 12, 12] * 0.229 + 0.485) * 255).tolist()]


def test_batches_have_the_documented_shapes(root):
    data = module(root)
    data.setup("fit")
    clips, labels = next(iter(data.train_dataloader()))
    assert clips.shape == (4, 3, 8, 24, 24)
    assert labels.shape == (4,)
    assert data.classes == ("left", "right")
    assert {split: len(videos) for split, videos in data.videos.items()} == {"train": 8, "val": 2, "test": 4}


@pytest.mark.parametrize(("sampling", "steps"), [("consecutive", {1}), ("uniform", {1, 9, 10, 11, 12, 13})])
def test_training_clips_hold_the_right_frames(root, sampling, steps):
    data = module(root, sampling=sampling, clip_length=8)
    data.setup("fit")
    torch.manual_seed(0)
    for clip, _ in data.train_dataloader().dataset:
        numbers = grey_values(clip)
        differences = {b - a for a, b in itertools.pairwise(numbers)}
        assert differences <= {*steps, *range(2, 24)} if sampling == "uniform" else differences == {1}
        if sampling == "uniform":
            assert numbers[:4] == list(range(numbers[0], numbers[0] + 4))
            assert numbers[0] < 12 <= numbers[4]


def test_validation_is_the_centre_clip_of_its_own_length(root):
    data = module(root, clip_length=4, eval_clip_length=8)
    data.setup("fit")
    dataset = data.val_dataloader().dataset
    for (clip, _), video in zip(dataset, dataset.videos, strict=True):
        num_frames = 24 + int(re.search(r"(\d)\.mp4", video.path)[1])
        start = (num_frames - 8) // 2
        assert grey_values(clip) == list(range(start, start + 8))


def test_test_views_are_clips_times_crops(root):
    data = module(root, num_test_clips=3, num_test_crops=3, test_crop_size=16)
    data.setup("test")
    views, label = next(iter(data.test_dataloader()))
    assert views.shape == (1, 9, 3, 8, 16, 16)
    assert label.tolist() == [0]
    assert [grey_values(views[0, view, :, :, :, :].repeat(1, 1, 2, 2))[0] for view in (0, 3, 6)] == [0, 8, 16]


def test_short_video_loops(root):
    data = module(root, clip_length=32, eval_clip_length=32)
    data.setup("fit")
    clip, _ = data.val_dataloader().dataset[0]
    assert grey_values(clip)[-1] < 12


def test_split_is_the_same_in_every_process_and_stage(root):
    first, second = module(root), module(root)
    first.setup("fit")
    second.setup("test")
    assert first.videos == second.videos


def test_following_trains_on_validation_videos_too(root):
    data = module(root, train_on_validation=True)
    data.setup("fit")
    assert len(data.videos["train"]) == 10


def test_cache_keeps_the_same_frames(root):
    plain, cached = module(root), module(root, cache=True)
    plain.setup("fit")
    expected = [clip for clip, _ in plain.val_dataloader().dataset]
    cached.setup("fit")
    for video in cached.videos["val"]:
        assert video.path  # decoded before; the file is not needed any more
    for clip, other in zip(expected, (clip for clip, _ in cached.val_dataloader().dataset), strict=True):
        assert torch.equal(clip, other)


def test_workers_load_the_same_clips(root):
    data, parallel = module(root), module(root, num_workers=2)
    data.setup("fit")
    parallel.setup("fit")
    for (a, _), (b, _) in zip(data.val_dataloader(), parallel.val_dataloader(), strict=True):
        assert torch.equal(a, b)


def test_broken_video_is_fatal_and_named(root):
    (root / "train" / "left" / "3.mp4").write_bytes(b"junk")
    (root / "train" / "right" / "1.mp4").write_bytes(b"junk")
    with pytest.raises(
        VideoError, match=r"left/3.mp4: InvalidDataError.*\(1 more of 14 videos are broken\)"
    ) as caught:
        module(root).setup("fit")
    assert '`on_error="skip"`' in str(caught.value)


def test_broken_video_can_be_left_out_with_a_word(root):
    (root / "train" / "left" / "3.mp4").write_bytes(b"junk")
    data = module(root, on_error="skip")
    with pytest.warns(UserWarning, match=r"1 of 14 videos cannot be decoded and are left out: .*left/3.mp4: Invalid"):
        data.setup("fit")
    assert sum(len(data.videos[split]) for split in ("train", "val")) == 9


def test_missing_test_set_is_named(tmp_path, write_video):
    for number in range(6):
        write_video(tmp_path / "only" / f"{number}.mp4")
    data = module(tmp_path)
    data.setup("test")
    with pytest.raises(
        ValueError, match=r"`root` must hold a test set, got .* with train \(5 videos\), val \(1 videos\)"
    ):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "dense"}, "`sampling` must be one of 'consecutive', 'uniform', got 'dense'"),
        ({"sampling": "uniform", "clip_length": 10}, "`clip_length` must be a multiple of 4"),
        ({"sampling": "uniform", "eval_clip_length": 10}, "`eval_clip_length` must be a multiple of 4"),
        ({"num_test_crops": 2}, "`num_test_crops` must be 1 or 3, got 2"),
        ({"crop_size": 30}, r"`short_side` must be a range in px of at least `crop_size` \(30\)"),
        ({"on_error": "ignore"}, "`on_error` must be one of 'raise', 'skip'"),
        ({"short_video": "stretch"}, "`short_video` must be one of 'loop', 'pad'"),
    ],
    ids=["sampling", "length", "eval-length", "crops", "side", "error", "short"],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        module(tmp_path, **options)
