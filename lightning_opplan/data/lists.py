"""Which videos there are, and what they show: a folder per class, or a CSV."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from lightning_opplan.data.texts import csv_rows
from lightning_opplan.messages import suggestion

__all__ = [
    "SUFFIXES",
    "FileFinder",
    "Split",
    "Video",
    "VideoList",
    "checked_folder",
    "checked_name",
    "first_names",
    "flow_folder",
    "missing_videos",
    "read_csv",
    "read_folders",
    "subfolder",
]

Split = Literal["train", "val", "test"]
SUFFIXES: Final = frozenset(
    {
        ".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".vob", ".gif",
        ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".ogg", ".mjpeg", ".mjpg", ".divx",
    }
)  # fmt: skip
"""Endings of the files that are taken for videos."""
_SPLITS: Final[dict[str, Split]] = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video of a data set.

    Attributes:
        path: Its file, or the folder of its pictures.
        name: What its list calls it, wherever the file lies and whatever it was converted to.
        label: Index of its class.
        group: What it was cut from; videos of one group never end up on both sides of a split.
        duration: Seconds, if the list says so.
    """

    path: str
    name: str
    label: int
    group: str | None = None
    duration: float | None = None


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """The videos of a data set by split, and the names of its classes in the order of their indices."""

    classes: tuple[str, ...]
    splits: dict[Split, tuple[Video, ...]]


class FileFinder:
    """Finds the files below a folder that a list names, wherever they were put and whatever they were converted to.

    Args:
        folder: Searched once, with all folders below.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[str, list[str]] = {}
        seen: set[str] = set()
        for parent, folders, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:  # a link to a folder above, or a second one to the same
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    self._found.setdefault(stem, []).append(os.path.join(parent, name))

    def __call__(self, name: str) -> str:
        """Return the file of a listed name; where it should be, if there is none.

        Args:
            name: Path below the folder, as listed. Of several files of that name, the one in a folder of that name is
                taken.
        """
        expected = os.path.join(self.folder, name)
        parent, stem = os.path.split(os.path.splitext(expected)[0])
        found = self._found.get(stem, [])
        if expected in found or not found:
            return expected
        return next((file for file in found if os.path.dirname(file) == parent), found[0])


def checked_folder(root: str | os.PathLike[str], argument: str = "root") -> Path:
    """Return the absolute path of a folder of videos, or raise a `FileNotFoundError`."""
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`{argument}` must be the folder of the videos, got {os.fspath(root)!r}: no such folder."
        )
    return folder


def flow_folder(folder: Path, video: Video) -> str:
    """Return where the optical flow of a video lies below a folder: where the video lies, without its suffix."""
    stem, suffix = os.path.splitext(video.name)
    return str(folder / (stem if suffix.lower() in SUFFIXES else video.name))


def checked_name(name: str, place: str) -> str:
    """Return a name in a list, or raise a `ValueError` if it leads out of the folder of the videos."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{place}: must name a video below `root`, got {name!r}.")
    return name


def missing_videos(found: VideoList, *, besides: Callable[[Video], bool] = lambda _: False) -> dict[Split, list[str]]:
    """Return the paths of listed videos that are not there, by split; only splits with some.

    Args:
        found: The listed videos.
        besides: Tells of a video that its file is not needed.
    """
    missing = {
        split: [video.path for video in videos if not besides(video) and not os.path.exists(video.path)]
        for split, videos in found.splits.items()
    }
    return {split: paths for split, paths in missing.items() if paths}


def subfolder(root: Path, names: Iterable[str]) -> Path:
    """Return the first folder of these names that there is below a folder, else that folder itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def first_names(names: Sequence[str], count: int = 3) -> str:
    """Enumerate the first of many names, and say how many more there are."""
    shown = ", ".join(names[:count])
    return f"{shown} and {len(names) - count} more" if len(names) > count else shown


def read_folders(root: str | os.PathLike[str]) -> VideoList:
    """Read a tree of ``<class>/<video>`` (all for training) or ``<split>/<class>/<video>``.

    Args:
        root: The folder. With folders ``train``, ``val`` or ``test`` in it, those are the splits.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a class has no video, or the splits have different classes.
    """
    root = checked_folder(root)
    found = {name: root / name for name in _SPLITS if (root / name).is_dir()}
    twice = next((name for name in found if name != _SPLITS[name] and _SPLITS[name] in found), None)
    if twice is not None:
        raise ValueError(f"{root}: must have one folder for each split, got {_SPLITS[twice]!r} and {twice!r}.")
    if not found:
        found = {"train": root}
    names = {split: _subfolders(folder) for split, folder in found.items()}
    classes = names.get("train") or next(iter(names.values()))
    splits: dict[Split, tuple[Video, ...]] = {}
    for split, folder in found.items():
        extra = sorted(set(names[split]) - set(classes))
        if extra:
            raise ValueError(f"{folder / extra[0]}: class {extra[0]!r} must have a folder in 'train' too.")
        splits[_SPLITS[split]] = tuple(
            Video(path=str(file), name=str(file.relative_to(root)), label=classes.index(name))
            for name in names[split]
            for file in _videos(folder / name)
        )
    if not classes:
        raise ValueError(f"{root}: must have a folder per class, got none.")
    return VideoList(classes=tuple(classes), splits=splits)


def read_csv(
    file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    group_column: str | None = None,
) -> VideoList:
    """Read a CSV with the columns `path`, `label` and, if there is more than a training set, `split`.

    Args:
        file: The CSV. Labels are names or numbers; classes are ordered by name, or by number if all are numbers.
        root: Folder that the paths are relative to.
        group_column: Name of a further column: what a video was cut from.

    Raises:
        FileNotFoundError: If there is no such CSV.
        ValueError: If a column is missing, a split is unknown, or a path leads out of `root`.
    """
    root, file = checked_folder(root), Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"`annotations` must be a CSV file, got {str(file)!r}: no such file.")
    rows = csv_rows(file)
    if not rows:
        raise ValueError(f"{file}: must list videos, got none.")
    for column in ("path", "label", *([group_column] if group_column else [])):
        if column not in rows[0][1]:
            known = suggestion(column, rows[0][1], label="Columns")
            raise ValueError(f"{file}: must have a column {column!r}. {known}")
    labels = {row["label"] for _, row in rows}
    for number, row in rows:
        for column in ("path", "label"):
            if not row[column]:
                raise ValueError(f"{file}, line {number}: must have a {column}, got none.")
    classes = sorted(labels, key=int) if all(map(_is_number, labels)) else sorted(labels)
    collected: dict[Split, list[Video]] = {}
    seen: dict[str, tuple[int, str, str]] = {}
    for number, row in rows:
        split = row.get("split") or "train"
        if split not in _SPLITS:
            raise ValueError(f"{file}, line {number}: `split` must be one of train, val, test, got {split!r}.")
        path = Path(os.path.normpath(root / row["path"]))
        if root not in path.parents:
            raise ValueError(f"{file}, line {number}: `path` must stay below {root}, got {row['path']!r}.")
        group = row[group_column] or None if group_column else None
        video = Video(path=str(path), name=str(path.relative_to(root)), label=classes.index(row["label"]), group=group)
        before, as_split, as_label = seen.setdefault(video.name, (number, _SPLITS[split], row["label"]))
        if (as_split, as_label) != (_SPLITS[split], row["label"]):
            what = "one split" if as_split != _SPLITS[split] else "one label"
            raise ValueError(f"{file}, lines {before} and {number}: {row['path']!r} must have {what}, got two.")
        collected.setdefault(_SPLITS[split], []).append(video)
    return VideoList(classes=tuple(classes), splits={split: tuple(videos) for split, videos in collected.items()})


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_number(label: str) -> bool:
    """Whether a label is a whole number; digits such as ² are none."""
    return label.isdecimal() and label.isascii()


def _videos(folder: Path) -> list[Path]:
    """The videos of a class, links that lead nowhere among them: they are missing, which is to be told."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    files = sorted(file for file in found if file.is_file() or (file.is_symlink() and not file.exists()))
    if not files:
        raise ValueError(
            f"{folder}: must hold videos of its class, got none ({', '.join(sorted(SUFFIXES))}). "
            "Add some, or delete the folder."
        )
    return files
