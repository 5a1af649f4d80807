"""UCF101: 13 320 clips in 101 classes, three splits (Soomro et al., 2012)."""

from pathlib import Path
from typing import Final

from lightning_opplan.data.datasets.official import list_file, read_lines
from lightning_opplan.data.lists import FileFinder, Split, Video, VideoList, checked_name, subfolder

__all__ = ["read_ucf101"]

_LISTS: Final = ("ucfTrainTestlist", "annotations", "splits")
_VIDEOS: Final = ("UCF-101", "UCF101", "videos")


def read_ucf101(root: Path, lists: Path | None = None, *, split: int = 1) -> VideoList:
    """Read ``classInd.txt``, ``trainlist0k.txt`` and ``testlist0k.txt``.

    A group is what the ``gXX`` of a name tells: the clips of one class that were cut from one video.

    Args:
        root: Folder with ``UCF-101/<class>/<video>``, or with the folders of the classes.
        lists: Folder of the lists; by default ``ucfTrainTestlist`` in `root`, or `root`.
        split: 1, 2 or 3.
    """
    lists = lists or subfolder(root, _LISTS)
    find = FileFinder(subfolder(root, _VIDEOS))
    classes = [line.split()[1] for _, line in read_lines(list_file(lists, "classInd.txt"))]
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[Split, tuple[Video, ...]] = {}
    for name in ("train", "test"):
        file = list_file(lists, f"{name}list{split:02d}.txt")
        videos = []
        for place, line in read_lines(file):
            # Training lines end in a label of their own, counted from 1; the folder says the same for both lists.
            path = checked_name(line.split()[0], place)
            folder, _, clip = path.rpartition("/")
            if folder not in labels:
                raise ValueError(f"{place}: must begin with a class of classInd.txt, got {path!r}.")
            group = f"{folder}/{clip.split('_')[-2]}" if clip.count("_") >= 2 else None
            videos.append(Video(path=find(path), name=path, label=labels[folder], group=group))
        splits[name] = tuple(videos)
    return VideoList(classes=tuple(classes), splits=splits)
