import pytest

from lightning_opplan.data.lists import read_csv, read_folders


@pytest.fixture
def tree(tmp_path):
    def make(*files):
        for name in files:
            file = tmp_path / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        return tmp_path / "set"

    return make


def test_folder_per_class_is_a_training_set(tree):
    found = read_folders(tree("run/b.mp4", "run/a.AVI", "jump/c.mkv", "run/notes.txt", ".hidden/x.mp4"))
    assert found.classes == ("jump", "run")
    assert list(found.splits) == ["train"]
    assert [(video.path.rpartition("/")[2], video.label) for video in found.splits["train"]] == [
        ("c.mkv", 0), ("a.AVI", 1), ("b.mp4", 1),
    ]  # fmt: skip


def test_folders_of_splits(tree):
    found = read_folders(tree("train/a/1.mp4", "train/b/2.mp4", "test/b/3.mp4", "validation/a/4.mp4"))
    assert {split: [video.label for video in videos] for split, videos in found.splits.items()} == {
        "train": [0, 1], "test": [1], "val": [0],
    }  # fmt: skip


def test_empty_class_folder_is_named(tree):
    root = tree("a/1.mp4", "b/readme.txt")
    with pytest.raises(ValueError, match=r"set/b: must hold videos of its class, got none"):
        read_folders(root)


def test_class_without_training_videos_is_named(tree):
    with pytest.raises(ValueError, match="class 'z' must have a folder in 'train' too"):
        read_folders(tree("train/a/1.mp4", "test/z/2.mp4"))


def test_missing_root_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="`root` must be the folder of the videos, got .*nowhere"):
        read_folders(tmp_path / "nowhere")


def test_no_class_folder_is_named(tree):
    with pytest.raises(ValueError, match="must have a folder per class, got none"):
        read_folders(tree("loose.mp4"))


def write_csv(folder, text):
    file = folder / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_with_splits_and_groups(tree):
    root = tree("x/1.mp4", "x/-2.mp4", "y/3.mp4")
    file = write_csv(
        root, "path,label,split,source\nx/1.mp4,run,train,s1\nx/-2.mp4,jump,test,\ny/3.mp4,run,train,s2\n"
    )
    found = read_csv(file, root, group_column="source")
    assert found.classes == ("jump", "run")
    assert [(video.label, video.group) for video in found.splits["train"]] == [(1, "s1"), (1, "s2")]
    assert found.splits["test"][0].group is None


def test_csv_of_numbers_is_ordered_by_number(tree):
    root = tree("1.mp4", "2.mp4")
    file = write_csv(root, "path,label\n1.mp4,10\n2.mp4,9\n")
    assert read_csv(file, root).classes == ("9", "10")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,label\n", ValueError, "must list videos, got none"),
        ("path,lable\n1.mp4,a\n", ValueError, "must have a column 'label'. Did you mean 'lable'"),
        ("path,label,split\n1.mp4,a,dev\n", ValueError, "line 2: `split` must be one of train, val, test, got 'dev'"),
        ("path,label\n../1.mp4,a\n", ValueError, "line 2: `path` must stay below"),
        ("path,label\n/etc/passwd,a\n", ValueError, "line 2: `path` must stay below"),
    ],
    ids=["empty", "column", "split", "outside", "absolute"],
)
def test_wrong_lists_are_refused(tree, text, error, message):
    root = tree("1.mp4")
    with pytest.raises(error, match=message):
        read_csv(write_csv(root, text), root)


def test_missing_csv_is_named(tree):
    with pytest.raises(FileNotFoundError, match="`annotations` must be a CSV file"):
        read_csv("nowhere.csv", tree("1.mp4"))


def test_a_split_has_one_folder(tmp_path):
    for split in ("train", "val", "validation"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.mp4").touch()
    with pytest.raises(ValueError, match="must have one folder for each split, got 'val' and 'validation'"):
        read_folders(tmp_path)
