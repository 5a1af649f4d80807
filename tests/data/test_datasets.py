"""The official lists as published, and miniature trees in the layout of each data set."""

import csv
import json
import re

import pytest

from lightning_opplan.data.datasets import DATASETS, read_dataset
from tests.helpers.trees import TREES


@pytest.mark.parametrize(
    ("split", "counts"),
    [(1, (9537, 3783)), (2, (9586, 3734)), (3, (9624, 3696))],
    ids=["split-1", "split-2", "split-3"],
)
def test_ucf101_has_its_official_counts(real_data, tmp_path, split, counts):
    found = read_dataset("ucf101", tmp_path, annotations=str(real_data / "annotations" / "ucf101"), split=split)
    assert tuple(len(found.splits[name]) for name in ("train", "test")) == counts
    assert len(found.classes) == 101
    assert found.classes[0] == "ApplyEyeMakeup"
    train, test = ({video.group for video in found.splits[name]} for name in ("train", "test"))
    assert not train & test
    assert "HandstandPushups/g08" in train | test  # whose clips are called v_HandStandPushups_…


def test_ucf101_labels_are_those_of_the_training_lines(real_data, tmp_path):
    folder = real_data / "annotations" / "ucf101"
    found = read_dataset("ucf101", tmp_path, annotations=str(folder))
    lines = (folder / "trainlist01.txt").read_text().split("\n")
    assert [video.label + 1 for video in found.splits["train"]] == [int(line.split()[1]) for line in lines if line]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_has_its_official_counts(real_data, tmp_path, split):
    found = read_dataset("hmdb51", tmp_path, annotations=str(real_data / "annotations" / "hmdb51"), split=split)
    assert (len(found.splits["train"]), len(found.splits["test"])) == (3570, 1530)
    names = (real_data / "annotations" / "hmdb51" / "class_list.txt").read_text().split()
    assert list(found.classes) == sorted(names)
    assert all(video.group for videos in found.splits.values() for video in videos)


def test_kinetics_lists_as_published(real_data, tmp_path):
    source = real_data / "annotations" / "kinetics"
    for name, origin in (("train", "kinetics-400_train.sample.csv"), ("val", "kinetics-400_val.head60.csv")):
        (tmp_path / f"kinetics-400_{name}.csv").write_bytes((source / origin).read_bytes())
    found = read_dataset("kinetics400", tmp_path)
    rows = list(csv.DictReader((source / "kinetics-400_train.sample.csv").read_text().splitlines()))
    assert [found.classes[video.label] for video in found.splits["train"]] == [row["label"] for row in rows]
    first = found.splits["train"][0]
    assert first.path.endswith("train/abseiling/-aU-xCCzkT0_000061_000071.mp4")
    assert (first.group, first.duration) == ("-aU-xCCzkT0", 10.0)


def test_something_v2_lists_as_published(real_data, tmp_path):
    source = real_data / "annotations" / "something"
    templates = {}
    for name in ("train", "validation"):
        content = (source / f"sthv2_{name}.sample.json").read_text()
        (tmp_path / f"{name}.json").write_text(content)
        for entry in json.loads(content):
            templates[entry["id"]] = re.sub(r"[\[\]]", "", entry["template"])
    known = (source / "label_map_sthv2.txt").read_text().splitlines()
    (tmp_path / "labels.json").write_text(json.dumps({label: str(number) for number, label in enumerate(known)}))
    found = read_dataset("something_v2", tmp_path)
    assert list(found.classes) == known
    ids = {video.path.rpartition("/")[2]: found.classes[video.label] for v in found.splits.values() for video in v}
    assert ids == {f"{number}.webm": label for number, label in templates.items()}


def test_something_v1_lists_as_published(real_data, tmp_path):
    source = real_data / "annotations" / "something"
    for name, origin in (("labels", "label_map_sthv1.txt"), ("train", "sthv1_train.sample.csv")):
        (tmp_path / f"something-something-v1-{name}.csv").write_bytes((source / origin).read_bytes())
    (tmp_path / "something-something-v1-validation.csv").write_text("7;Holding something\n")
    found = read_dataset("something_v1", tmp_path)
    assert [found.classes[video.label] for video in found.splits["train"]] == [
        "Something falling like a feather or paper", "Unfolding something",
    ]  # fmt: skip
    assert found.splits["test"][0].label == 0
    assert len(found.classes) == 174


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_video_of_a_tree_is_found(tmp_path, write_video, name):
    expected = TREES[name](tmp_path, write_video)
    found = read_dataset(name, tmp_path)
    assert {split: len(videos) for split, videos in found.splits.items()} == expected
    paths = [video.path for videos in found.splits.values() for video in videos]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert (tmp_path / path).exists(), path
    assert {video.label for video in found.splits["train"]} == set(range(len(found.classes)))


def test_converted_and_flat_files_are_found(tmp_path, write_video):
    TREES["ucf101"](tmp_path, write_video)
    for file in list((tmp_path / "UCF-101").rglob("*.avi")):
        file.rename(tmp_path / "UCF-101" / f"{file.stem}.mp4")
    found = read_dataset("ucf101", tmp_path)
    assert all(video.path.endswith(".mp4") for video in found.splits["train"])


def test_names_stay_when_files_move(tmp_path, write_video):
    TREES["activitynet"](tmp_path, write_video)
    before = read_dataset("activitynet", tmp_path)
    (tmp_path / "videos" / "training").rename(tmp_path / "elsewhere")
    after = read_dataset("activitynet", tmp_path)
    assert [v.name for v in after.splits["train"]] == [v.name for v in before.splits["train"]]
    assert [v.path for v in after.splits["train"]] != [v.path for v in before.splits["train"]]


def test_links_in_a_circle_end(tmp_path, write_video):
    TREES["ucf101"](tmp_path, write_video)
    for name in ("a", "b"):
        (tmp_path / "UCF-101" / name).symlink_to(tmp_path / "UCF-101", target_is_directory=True)
    assert len(read_dataset("ucf101", tmp_path).splits["train"]) == 12


def test_activitynet_takes_the_label_of_most_time_and_numbers_by_first_appearance(tmp_path):
    database = {
        "b": {
            "duration": 20.0, "subset": "training", "annotations": [
                {"segment": [0, 1], "label": "Surfing"}, {"segment": [2, 9], "label": "Archery"},
            ],
        },
        "a": {"duration": 9.5, "subset": "validation", "annotations": [{"segment": [0, 9], "label": "Surfing"}]},
        "c": {"duration": 9.5, "subset": "testing", "annotations": []},
    }  # fmt: skip
    (tmp_path / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))
    found = read_dataset("activitynet", tmp_path)
    assert found.classes == ("Surfing", "Archery")
    assert [(video.label, video.duration) for video in found.splits["train"]] == [(1, 20.0)]
    assert [video.path.rpartition("/")[2] for video in found.splits["test"]] == ["v_a.mp4"]


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ucf11", {}, ValueError, "`dataset` must be one of 'activitynet', .*, got 'ucf11'"),
        ("ucf101", {"split": 4}, ValueError, "`split` must be 1, 2 or 3, got 4"),
        ("kinetics400", {"split": 1}, ValueError, "`split` must be left out for 'kinetics400'"),
        ("ucf101", {}, FileNotFoundError, "`annotations` must be the folder of the lists, .*: no classInd.txt there"),
        ("hmdb51", {}, FileNotFoundError, "no <class>_test_split1.txt there"),
        ("kinetics600", {}, FileNotFoundError, "no kinetics-600_train.csv there"),
    ],
    ids=["name", "split", "no-splits", "ucf101", "hmdb51", "kinetics"],
)
def test_wrong_arguments_are_named(tmp_path, name, options, error, message):
    with pytest.raises(error, match=message):
        read_dataset(name, tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("ucf101", "trainlist01.txt", "../../etc/passwd 1\n", "list01.txt, line 1: must name a video below `root`"),
        ("ucf101", "trainlist01.txt", "No/v_a_g01_c01.avi 1\n", "line 1: must begin with a class of classInd"),
        ("hmdb51", "jump_test_split1.txt", "a_jump_x.avi 7\n", "line 1: must end in 0 .unused., 1"),
        ("kinetics400", "kinetics-400_val.csv", "label,youtube_id\nx,y\n", "must have a column 'time_start'"),
        (
            "kinetics400", "kinetics-400_val.csv", "label,youtube_id,time_start,time_end\njump,../x,1,2\n",
            "line 2: must name a video below `root`",
        ),
        ("something_v1", "something-something-v1-train.csv", "1;Flying\n", "line 1: must have a label of the list"),
        ("something_v2", "something-something-v2-train.json", "{", "train.json: must be JSON"),
        ("activitynet", "activity_net.v1-3.min.json", "[]", "must be JSON with a `database`"),
    ],
    ids=["outside", "class", "flag", "column", "id-outside", "label", "json", "database"],
)  # fmt: skip
def test_wrong_lists_are_named(tmp_path, write_video, name, file, content, message):
    TREES[name](tmp_path, write_video)
    (found,) = tmp_path.rglob(file)
    found.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_dataset(name, tmp_path)
