"""The public data sets of the paper's Table 2, read from their own lists, one data set a file."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from lightning_opplan.data.datasets.activitynet import read_activitynet
from lightning_opplan.data.datasets.hmdb51 import read_hmdb51
from lightning_opplan.data.datasets.kinetics import read_kinetics400, read_kinetics600
from lightning_opplan.data.datasets.something import read_something_v1, read_something_v2
from lightning_opplan.data.datasets.ucf101 import read_ucf101
from lightning_opplan.data.lists import VideoList, checked_folder
from lightning_opplan.messages import checked_choice

__all__ = ["DATASETS", "read_dataset"]

DATASETS: Final[Mapping[str, Callable[..., VideoList]]] = MappingProxyType(
    {
        "activitynet": read_activitynet,
        "hmdb51": read_hmdb51,
        "kinetics400": read_kinetics400,
        "kinetics600": read_kinetics600,
        "something_v1": read_something_v1,
        "something_v2": read_something_v2,
        "ucf101": read_ucf101,
    }
)
"""Readers by the names that configurations use."""

_WITH_SPLITS: Final = ("hmdb51", "ucf101")


def read_dataset(
    name: str, root: str | os.PathLike[str], *, annotations: str | None = None, split: int | None = None
) -> VideoList:
    """Read the official lists of a data set.

    Args:
        name: One of `DATASETS`.
        root: Folder of the data set.
        annotations: Folder of the lists, relative to `root` unless absolute; by default where the archives put them.
        split: Official split of HMDB51 and UCF101: 1 (the default), 2 or 3.

    Returns:
        All listed videos, whether their files are there or not, with paths where they are or should be. Where the
        labels of the official test set are not published, the official validation set is the test set.

    Raises:
        ValueError: If an argument is none of the above, or a list is not as published.
        FileNotFoundError: If the folder or a list is missing.
    """
    checked_choice("dataset", name, DATASETS)
    folder = checked_folder(root)
    lists = folder / annotations if annotations is not None else None
    if name not in _WITH_SPLITS:
        if split is not None:
            raise ValueError(f"`split` must be left out for {name!r}, which has one split, got {split!r}.")
        return DATASETS[name](folder, lists)
    if split not in (None, 1, 2, 3):
        raise ValueError(f"`split` must be 1, 2 or 3, got {split!r}.")
    return DATASETS[name](folder, lists, split=split or 1)
