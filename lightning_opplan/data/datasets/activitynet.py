"""ActivityNet v1.3: about 20 000 untrimmed videos in 200 classes (Caba Heilbron et al., 2015)."""

import json
import os
from pathlib import Path
from typing import Any, Final

from lightning_opplan.data.datasets.official import list_file
from lightning_opplan.data.lists import FileFinder, Split, Video, VideoList, checked_name, subfolder
from lightning_opplan.data.texts import read_text

__all__ = ["read_activitynet"]

_OFFICIAL: Final[dict[str, Split]] = {"training": "train", "validation": "test"}
"""Labels of the official test set are not published, so the official validation set is the test set (section 5.1)."""


def read_activitynet(root: Path, lists: Path | None = None) -> VideoList:
    """Read ``activity_net.v1-3.min.json``.

    A video has the label that most of its annotated time has. Classes are numbered by their first appearance.

    Args:
        root: Folder with the files ``v_<id>.<mp4|mkv|webm>``, or with folders of them.
        lists: Folder of the JSON file; by default `root`.
    """
    lists = lists or subfolder(root, ("annotations", "lists"))
    file = list_file(lists, "activity_net.v1-3.min.json", "activity_net.v1-3.json")
    try:
        database: dict[str, Any] = json.loads(read_text(file))["database"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: must be JSON with a `database`: {error}.") from None
    find = FileFinder(root)
    labels: dict[str, int] = {}
    videos: dict[Split, list[Video]] = {"train": [], "test": []}
    for name, entry in database.items():
        for annotation in entry["annotations"]:
            labels.setdefault(annotation["label"], len(labels))
        split = _OFFICIAL.get(entry["subset"])
        if split is None or not entry["annotations"]:
            continue
        seconds: dict[str, float] = {}
        for annotation in entry["annotations"]:
            begin, end = annotation["segment"]
            seconds[annotation["label"]] = seconds.get(annotation["label"], 0.0) + end - begin
        label = labels[max(seconds, key=lambda name: seconds[name])]
        clip = f"v_{checked_name(name, f'{file}, {name!r}')}.mp4"
        path = find(clip)
        if name.startswith("v_") and not os.path.exists(path):  # some lists have the prefix of the files
            path = find(f"{name}.mp4")
        videos[split].append(Video(path=path, name=clip, label=label, duration=entry.get("duration")))
    return VideoList(classes=tuple(labels), splits={key: tuple(value) for key, value in videos.items()})
