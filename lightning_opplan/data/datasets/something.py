"""Something-Something V1 and V2: 174 ways to handle objects (Goyal et al., 2017)."""

import json
import os
from pathlib import Path
from typing import Any, Final

from lightning_opplan.data.datasets.official import list_file, read_lines
from lightning_opplan.data.lists import FileFinder, Split, Video, VideoList, checked_name, subfolder
from lightning_opplan.data.texts import read_text

__all__ = ["read_something_v1", "read_something_v2"]

_LISTS: Final = ("annotations", "labels", "lists")
_OFFICIAL: Final[dict[Split, str]] = {"train": "train", "test": "validation"}
"""Labels of the official test set are not published, so the official validation set is the test set (section 5.1)."""


def read_something_v1(root: Path, lists: Path | None = None) -> VideoList:
    """Read ``something-something-v1-labels.csv``, ``…-train.csv`` and ``…-validation.csv``, the test set here.

    Labels are numbered in the order of their file. A video is a folder of JPEG pictures ``<id>/00001.jpg``.

    Args:
        root: Folder with ``20bn-something-something-v1/<id>``, or with the folders of the videos.
        lists: Folder of the lists; by default `root`.
    """
    lists = lists or subfolder(root, _LISTS)
    folder = subfolder(root, ("20bn-something-something-v1", "videos", "frames"))
    classes = [line for _, line in read_lines(_file(lists, "v1", "labels", "csv"))]
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[Split, tuple[Video, ...]] = {}
    for split, name in _OFFICIAL.items():
        videos = []
        for place, line in read_lines(_file(lists, "v1", name, "csv")):
            number, _, label = line.partition(";")
            path = os.path.join(folder, checked_name(number, place))
            videos.append(Video(path=path, name=number, label=_label(labels, label, place)))
        splits[split] = tuple(videos)
    return VideoList(classes=tuple(classes), splits=splits)


def read_something_v2(root: Path, lists: Path | None = None) -> VideoList:
    """Read ``something-something-v2-labels.json``, ``…-train.json`` and ``…-validation.json``, the test set here.

    Labels are numbered as their file says. The class of a video is its template without the brackets.

    Args:
        root: Folder with ``20bn-something-something-v2/<id>.webm``, or with the files.
        lists: Folder of the lists; by default `root`.
    """
    lists = lists or subfolder(root, _LISTS)
    find = FileFinder(subfolder(root, ("20bn-something-something-v2", "videos")))
    labels = {name: int(label) for name, label in _json(_file(lists, "v2", "labels", "json")).items()}
    classes = sorted(labels, key=lambda name: labels[name])
    splits: dict[Split, tuple[Video, ...]] = {}
    for split, name in _OFFICIAL.items():
        file = _file(lists, "v2", name, "json")
        videos = []
        for number, entry in enumerate(_json(file), start=1):
            place = f"{file}, entry {number}"
            label = entry["template"].replace("[", "").replace("]", "")
            clip = checked_name(str(entry["id"]), place) + ".webm"
            videos.append(Video(path=find(clip), name=clip, label=_label(labels, label, place)))
        splits[split] = tuple(videos)
    return VideoList(classes=tuple(classes), splits=splits)


def _file(lists: Path, version: str, name: str, suffix: str) -> Path:
    return list_file(lists, f"something-something-{version}-{name}.{suffix}", f"{name}.{suffix}")


def _json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except ValueError as error:
        raise ValueError(f"{file}: must be JSON: {error}.") from None


def _label(labels: dict[str, int], name: str, place: str) -> int:
    if name not in labels:
        raise ValueError(f"{place}: must have a label of the list of labels, got {name!r}.")
    return labels[name]
