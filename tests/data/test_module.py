import itertools
import os
import re
import time
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_opplan import VideoDataModule
from lightning_opplan.data.cache_command import write_cache
from lightning_opplan.data.clips import BrokenVideos
from lightning_opplan.data.frames import memory
from lightning_opplan.data.video_files import VideoError


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


def test_missing_videos_are_counted_and_named(root):
    (root / "list.csv").write_text(
        "path,label,split\n"
        + "".join(f"train/left/{n}.mp4,left,train\ntrain/right/{n}.mp4,right,train\n" for n in range(8))
        + "test/left/0.mp4,left,test\ntest/left/9.mp4,left,test\n"
    )
    message = r"\d of 12 train videos, 1 of 2 test videos, \d of 4 val videos are not below .*: train/.* and 4 more"
    with pytest.raises(FileNotFoundError, match=message + '.*set `on_missing="skip"`'):
        module(root, annotations="list.csv", val_size=4).setup("fit")
    tolerant = module(root, annotations="list.csv", val_size=4, on_missing="skip")
    with pytest.warns(UserWarning, match="they are left out"):
        tolerant.setup("fit")
    assert sum(len(videos) for videos in tolerant.videos.values()) == 11


def test_validation_set_is_as_large_as_the_test_set(root):
    data = module(root, val_size=None)
    data.setup("fit")
    assert {split: len(videos) for split, videos in data.videos.items()} == {"train": 6, "val": 4, "test": 4}


def test_validation_set_does_not_depend_on_what_is_missing(root):
    """Nor may it move videos between the sides when the file of one is lost."""
    first = module(root)
    first.setup("fit")
    lost = first.videos["train"][0].path
    (root / "list.csv").write_text(
        "path,label,split\n"
        + "".join(f"train/{name}/{n}.mp4,{name},train\n" for name in ("left", "right") for n in range(5))
    )
    (root / lost).unlink()
    second = module(root, annotations="list.csv", on_missing="skip")
    with pytest.warns(UserWarning, match="1 of 8 train videos are not below"):
        second.setup("fit")
    assert second.videos["val"] == first.videos["val"]


def test_validation_set_is_kept_in_a_file_and_read_from_it(root, tmp_path):
    file = tmp_path / "kept" / "val.txt"
    data = module(root, val_file=str(file))
    data.setup("fit")
    names = file.read_text().splitlines()
    assert [str(root / name) for name in names] == [video.path for video in data.videos["val"]]
    file.write_text("train/left/0.mp4\ntrain/right/4.mp4\n")
    other = module(root, val_file=str(file), split_seed=7)
    other.setup("fit")
    assert [video.path for video in other.videos["val"]] == [
        str(root / "train/left/0.mp4"), str(root / "train/right/4.mp4"),
    ]  # fmt: skip
    file.write_text("train/left/0.mp4\ntrain/up/1.mp4\n")
    with pytest.raises(
        ValueError, match="`val_file` must name videos of the training set, got .* with train/up/1.mp4"
    ):
        module(root, val_file=str(file)).setup("fit")


@pytest.mark.parametrize(("name", "sizes"), [("ucf101", (9537, 3783)), ("hmdb51", (3570, 1530))], ids=["ucf", "hmdb"])
def test_real_groups_are_never_split(real_data, tmp_path, name, sizes):
    data = VideoDataModule(str(tmp_path), dataset=name, annotations=str(real_data / "annotations" / name))
    splits = data._with_validation(data.read_list().splits)
    assert len(splits["train"]) + len(splits["val"]) == sizes[0]
    assert abs(len(splits["val"]) - sizes[1]) <= 0.01 * sizes[1]
    assert not {video.group for video in splits["train"]} & {video.group for video in splits["val"]}
    counts = Counter(video.label for video in data.read_list().splits["train"])
    taken = Counter(video.label for video in splits["val"])
    for label, count in counts.items():
        assert abs(taken[label] - count * sizes[1] / sizes[0]) <= 4  # groups have up to seven clips


def break_later(root, monkeypatch, *names):
    """Let some videos pass the first look and fail when a clip is cut."""
    original = memory.decode_frames

    def decode(path, indices=None, **options):
        if any(path.endswith(name) for name in names):
            raise VideoError(path, "it ends early")
        return original(path, indices, **options)

    monkeypatch.setattr(memory, "decode_frames", decode)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_video_that_fails_later_ends_the_run_with_its_name(root, monkeypatch, num_workers):
    data = module(root, num_workers=num_workers)
    data.setup("fit")
    name = data.videos["train"][3].path
    break_later(root, monkeypatch, name)
    with pytest.raises(VideoError) as caught:
        list(data.train_dataloader())
    assert (caught.value.path, caught.value.reason) == (name, "it ends early")


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:A video cannot be decoded and is left out")
def test_videos_that_fail_later_are_left_out_up_to_a_limit(root, monkeypatch, num_workers):
    data = module(root, num_workers=num_workers, on_error="skip", max_broken=2)
    data.setup("fit")
    paths = [video.path for video in data.videos["train"]]
    break_later(root, monkeypatch, *paths[:2])
    loader = data.train_dataloader()
    for _ in range(3):
        assert sum(len(labels) for _, labels in loader) == 8
    assert len(loader.dataset.broken) == 2
    break_later(root, monkeypatch, *paths[:3])
    with pytest.raises(VideoError, match=r"it ends early \(and 2 videos were left out before: more than `max_broken`"):
        list(loader)


@pytest.mark.filterwarnings("ignore:A video cannot be decoded and is left out")
def test_video_that_two_processes_leave_out_at_once_counts_once():
    broken = BrokenVideos(num_videos=4, limit=2)
    for index in (0, 1, 1):
        broken.add(index, VideoError(f"{index}.mp4", "it ends early"))
    assert len(broken) == 2
    with pytest.raises(VideoError, match="and 2 videos were left out before"):
        broken.add(2, VideoError("2.mp4", "it ends early"))


@pytest.mark.slow
def test_too_many_broken_videos_end_the_run(root):
    for number in range(3):
        (root / "train" / "left" / f"{number}.mp4").write_bytes(b"junk")
    with pytest.raises(VideoError, match=r"3 of 14 videos are broken: more than `max_broken` \(0.1\) allows"):
        module(root, on_error="skip", max_broken=0.1).setup("fit")


def test_decoder_that_hangs_is_named(root, monkeypatch):
    data = module(root)
    data.setup("fit")
    monkeypatch.setattr(memory, "_PATIENCE", 0.2)
    monkeypatch.setattr(memory, "decode_frames", lambda *_, **__: time.sleep(1.5))
    with pytest.raises(VideoError, match=r"mp4: the decoder hangs \(no progress for 0.2 s\)"):
        data.val_dataloader().dataset[0]


def test_frames_on_disk_give_the_same_clips_without_the_videos(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    plain = module(root)
    plain.setup("fit")
    expected = list(plain.val_dataloader().dataset)
    data = module(root, cache_dir=str(folder))
    with pytest.raises(FileNotFoundError, match="`cache_dir` must be a folder of decoded frames"):
        data.setup("fit")
    write_cache(data, short_side=24, num_threads=2)
    names = sorted(video.path for videos in plain.videos.values() for video in videos)
    rows = [(os.path.relpath(name, root), *name.split("/")[-2:-4:-1]) for name in names]
    (root / "list.csv").write_text("path,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows))
    for name in names:
        os.unlink(name)
    memory.forget()
    data = module(root, cache_dir=str(folder), annotations="list.csv")
    data.setup("fit")
    for (clip, label), (other, other_label) in zip(expected, data.val_dataloader().dataset, strict=True):
        assert label == other_label
        assert torch.equal(clip, other)
    clips, _ = next(iter(data.train_dataloader()))
    assert clips.shape == (4, 3, 8, 24, 24)


def test_torchcodec_gives_the_same_frames(root):
    pytest.importorskip("torchcodec", exc_type=(ImportError, RuntimeError))
    plain, other = module(root), module(root, decoder="torchcodec")
    plain.setup("fit")
    other.setup("fit")
    for (a, _), (b, _) in zip(plain.val_dataloader().dataset, other.val_dataloader().dataset, strict=True):
        assert (a - b).abs().max() < 0.02  # a grey level


def test_video_that_is_listed_twice_is_on_one_side(root):
    names = [f"train/{name}/{number}.mp4" for name in ("left", "right") for number in range(5)]
    rows = [f"{name},{name.split('/')[1]},train\n" for name in names for _ in range(2)]
    (root / "list.csv").write_text("path,label,split\n" + "".join(rows))
    first, second = (module(root, annotations="list.csv", val_size=6) for _ in range(2))
    first.setup("fit")
    second.setup("fit")  # from the file
    assert first.videos == second.videos
    assert len(first.videos["val"]) == 4  # of each class two of three: videos are taken whole
    assert not {v.path for v in first.videos["train"]} & {v.path for v in first.videos["val"]}


def test_draws_after_a_broken_video_are_the_same_whenever_it_is_found(root, monkeypatch):
    """A resumed run knows of no broken video yet."""
    data = module(root, on_error="skip", max_broken=2)
    data.setup("fit")
    break_later(root, monkeypatch, data.videos["train"][2].path)

    def epoch(dataset):
        torch.manual_seed(5)
        return [dataset[index][0] for index in range(len(dataset))]

    fresh, known = data.train_dataloader().dataset, data.train_dataloader().dataset
    with pytest.warns(UserWarning, match="is left out"):
        epoch(known)
    with pytest.warns(UserWarning, match="is left out"):
        first = epoch(fresh)
    assert all(torch.equal(a, b) for a, b in zip(first, epoch(known), strict=True))


@pytest.mark.slow
def test_spawned_workers_read_no_file_through_again(root):
    data = module(root)
    data.setup("fit")
    expected = [clip for clip, _ in data.val_dataloader().dataset]
    loader = DataLoader(data.val_dataloader().dataset, num_workers=1, multiprocessing_context="spawn")
    assert all(torch.equal(a, b[0]) for a, (b, _) in zip(expected, loader, strict=True))


def test_names_that_are_no_text_are_all_right(tmp_path, write_video):
    odd = os.fsdecode(b"caf\xe9 \xe2\x80\xa8.mp4")  # Latin-1, and a Unicode line separator
    for name in ("a", "b"):
        for number in range(3):
            write_video(tmp_path / name / f"{number}.mp4")
        write_video(tmp_path / name / "x.mp4").rename(tmp_path / name / odd)
    first, second = module(tmp_path, val_size=2), module(tmp_path, val_size=2)
    first.setup("fit")
    memory.forget()
    second.setup("fit")
    assert first.videos == second.videos
