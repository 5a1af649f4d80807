"""Kinetics-400 and -600: ten-second clips of YouTube videos (Kay et al., 2017; Carreira et al., 2018)."""

import csv
import io
from pathlib import Path
from typing import Final

from lightning_opplan.data.datasets.official import list_file
from lightning_opplan.data.lists import FileFinder, Split, Video, VideoList, checked_name, subfolder
from lightning_opplan.data.texts import read_text

__all__ = ["read_kinetics400", "read_kinetics600"]

_LISTS: Final = ("annotations", "lists")
_OFFICIAL: Final[dict[Split, tuple[str, ...]]] = {"train": ("train",), "test": ("val", "validate", "validation")}
"""Labels of the official test set are not published, so the official validation set is the test set (section 5.1)."""


def read_kinetics400(root: Path, lists: Path | None = None) -> VideoList:
    """Read ``kinetics-400_train.csv`` and ``kinetics-400_val.csv``, whose videos are the test set; see there."""
    return _read(root, lists, 400)


def read_kinetics600(root: Path, lists: Path | None = None) -> VideoList:
    """Read ``kinetics-600_train.csv`` and ``kinetics-600_val.csv``, whose videos are the test set; see there."""
    return _read(root, lists, 600)


def _read(root: Path, lists: Path | None, number: int) -> VideoList:
    """Read the lists, and find files ``<id>_<start>_<end>``, seconds in six digits, anywhere below `root`.

    A group is a YouTube id: some ids come twice.
    """
    lists = lists or subfolder(root, _LISTS)
    find = FileFinder(root)
    rows: dict[Split, list[tuple[str, dict[str, str]]]] = {}
    for split, names in _OFFICIAL.items():
        prefixes = (f"kinetics-{number}_", f"kinetics_{number}_", f"k{number}_", f"kinetics{number}_", "")
        file = list_file(
            lists, *(f"{prefix}{name}{suffix}" for suffix in (".csv", ".txt") for prefix in prefixes for name in names)
        )
        reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
        for column in ("label", "youtube_id", "time_start", "time_end"):
            if column not in (reader.fieldnames or ()):
                raise ValueError(f"{file}: must have a column {column!r}, got {reader.fieldnames}.")
        rows[split] = [(f"{file}, line {reader.line_num}", row) for row in reader]
    classes = sorted({row["label"] for listed in rows.values() for _, row in listed})
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[Split, tuple[Video, ...]] = {}
    for split, listed in rows.items():
        videos = []
        for place, row in listed:
            start, end = (_seconds(row[column], place) for column in ("time_start", "time_end"))
            clip = checked_name(f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4", place)
            name = f"{_OFFICIAL[split][0]}/{row['label']}/{clip}"
            videos.append(
                Video(
                    path=find(name),
                    name=name,
                    label=labels[row["label"]],
                    group=row["youtube_id"],
                    duration=float(end - start),
                )
            )
        splits[split] = tuple(videos)
    return VideoList(classes=tuple(classes), splits=splits)


def _seconds(value: str, place: str) -> int:
    try:
        return int(float(value))
    except ValueError:
        raise ValueError(f"{place}: must have times in seconds, got {value!r}.") from None
