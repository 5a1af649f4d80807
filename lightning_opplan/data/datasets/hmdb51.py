"""HMDB51: 6 766 clips in 51 classes, three splits (Kuehne et al., 2011)."""

from pathlib import Path
from typing import Final

from lightning_opplan.data.datasets.official import read_lines
from lightning_opplan.data.lists import FileFinder, Split, Video, VideoList, checked_name, subfolder

__all__ = ["read_hmdb51"]

_LISTS: Final = ("testTrainMulti_7030_splits", "test_train_splits", "annotations", "splits")
_VIDEOS: Final = ("hmdb51_org", "hmdb51", "videos")
_FLAGS: Final[dict[str, Split | None]] = {"0": None, "1": "train", "2": "test"}


def read_hmdb51(root: Path, lists: Path | None = None, *, split: int = 1) -> VideoList:
    """Read ``<class>_test_split<k>.txt`` of all classes, whose lines are a file's name and 0 (unused), 1 or 2 (test).

    A group is the film or video that a clip was cut from, which its name begins with.

    Args:
        root: Folder with ``hmdb51_org/<class>/<video>``, or with the folders of the classes.
        lists: Folder of the lists; by default ``testTrainMulti_7030_splits`` in `root`, or `root`.
        split: 1, 2 or 3.
    """
    lists = lists or subfolder(root, _LISTS)
    lists = subfolder(lists, _LISTS)  # the archive of the lists has a folder of its own in it
    ending = f"_test_split{split}.txt"
    files = {file.name.removesuffix(ending): file for file in lists.glob(f"*{ending}")}
    if not files:
        raise FileNotFoundError(
            f"`annotations` must be the folder of the lists, got {lists}: no <class>{ending} there."
        )
    find = FileFinder(subfolder(root, _VIDEOS))
    classes = sorted(files)
    videos: dict[Split, list[Video]] = {"train": [], "test": []}
    for label, name in enumerate(classes):
        for place, line in read_lines(files[name]):
            clip, _, flag = line.rpartition(" ")
            if flag not in _FLAGS:
                raise ValueError(f"{place}: must end in 0 (unused), 1 (training) or 2 (test), got {line!r}.")
            used = _FLAGS[flag]
            if used is not None:
                path = f"{name}/{checked_name(clip, place)}"
                source, found, _ = clip.rpartition(f"_{name}_")
                videos[used].append(Video(path=find(path), name=path, label=label, group=source if found else None))
    return VideoList(classes=tuple(classes), splits={key: tuple(value) for key, value in videos.items()})
