"""Cut an internal validation set from a training set (section 5.1), and keep it."""

import hashlib
import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_opplan.data.frames.index_database import cache_folder
from lightning_opplan.data.lists import Video, first_names
from lightning_opplan.files import replacing

__all__ = ["internal_split", "kept_split", "load_split", "save_split", "warn_of_large"]


def kept_split(
    train: Sequence[Video], *, size: float, seed: int, file: Path | None = None
) -> tuple[list[int], list[int]]:
    """Split a training set as it was split before, or split it and keep how.

    Args:
        train: The videos. One that is listed twice is on one side, too.
        size: As of `internal_split`.
        seed: As of `internal_split`.
        file: File that keeps it, by default one in the user's cache folder. Only that may be impossible to write.

    Returns:
        Indices for training and for validation, ascending.

    Raises:
        ValueError: If the file is of another training set, or `size` leaves nothing on one side.
        OSError: If `file` is given and cannot be written.
    """
    names, labels = [video.name for video in train], [video.label for video in train]
    groups = [video.group or video.name for video in train]
    is_given = file is not None
    if file is None:
        recipe = json.dumps([names, labels, groups, size, seed])
        file = cache_folder() / "splits" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.txt"
    if file.exists():
        return load_split(file, names)
    kept, cut = internal_split(labels, groups, size=size, seed=seed)
    try:
        save_split(file, [names[index] for index in cut])
    except OSError as error:
        if is_given:
            raise
        rank_zero_warn(f"The internal validation set is not kept: {error}.")
    rank_zero_info(f"Internal validation set: {len(cut)} of {len(train)} training videos, see {file}")
    return kept, cut


def internal_split(
    labels: Sequence[int], groups: Sequence[Hashable | None], *, size: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split the indices of a training set in two, by label evenly and never within a group.

    Args:
        labels: Class of each example.
        groups: Source of each example, such as the video it was cut from; ``None`` for one of its own.
        size: Examples to take out: a count if 1 or more, else a share of all. Groups are taken whole, so the size is
            met as nearly as they allow.
        seed: Seed of the choice. The same arguments give the same split on every machine.

    Returns:
        Indices for training and for validation, ascending.

    Raises:
        ValueError: If `size` leaves nothing on one side, or groups are so large that one side stays empty.

    References:
        Section 5.1: the internal validation set is as large as the original validation or test set.
    """
    wanted = size if size >= 1 else size * len(labels)
    if not 0 < wanted < len(labels):
        raise ValueError(
            f"`size` must leave examples on both sides of a set of {len(labels)}, got {size!r}. "
            "Give a count, or a share between 0 and 1."
        )
    missing = Counter(_quotas(Counter(labels), max(round(wanted), 1)))
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(("alone", index) if group is None else ("group", group), []).append(index)
    order = list(members)
    random.Random(seed).shuffle(order)
    candidates = {label: _Candidates() for label in missing}
    for name in order:
        for label in {labels[index] for index in members[name]}:
            candidates[label].fresh.append(name)

    validation: list[int] = []
    used: set[Hashable] = set()
    queue = [(-count, label) for label, count in missing.items()]
    heapq.heapify(queue)
    while queue:
        # The label that is short of most examples comes next; what others took of it meanwhile counts.
        count, label = heapq.heappop(queue)
        if -count > missing[label]:
            heapq.heappush(queue, (-missing[label], label))
            continue
        room = missing.total()
        best = candidates[label].best(lambda name: _worth(members[name], labels, missing, room), used)  # noqa: B023
        if missing[label] <= 0 or best is None:
            continue
        used.add(best)
        validation += members[best]
        missing.subtract(labels[index] for index in members[best])
        heapq.heappush(queue, (-missing[label], label))
    chosen = set(validation)
    training = [index for index in range(len(labels)) if index not in chosen]
    if not validation or not training:
        raise ValueError(
            f"`size` must be large enough for whole groups, got {size!r} of {len(labels)} examples in "
            f"{len(members)} groups: one side would be empty."
        )
    return training, sorted(validation)


def warn_of_large(num_cut: int, num_all: int, val_size: float | None, what: str) -> None:
    """Warn where the internal validation set takes more than half of the training set."""
    if 2 * num_cut > num_all:
        why = "as many as there are for the test" if val_size is None else "as `val_size` says"
        rank_zero_warn(
            f"The internal validation set takes {num_cut} of {num_all} training {what}, {why}. "
            "Set `val_size` to keep more for training."
        )


class _Candidates:
    """Groups with examples of one label: those not looked at yet, and those that are not missing as a whole."""

    def __init__(self) -> None:
        self.fresh: deque[Hashable] = deque()
        self.partial: list[Hashable] = []

    def best(self, worth: Callable[[Hashable], float], used: set[Hashable]) -> Hashable | None:
        """The first group that is missing as a whole, else that of which the largest part is, at least half."""
        while self.fresh:
            name = self.fresh.popleft()
            if name not in used:
                if worth(name) == 1:
                    return name
                self.partial.append(name)  # what is missing only gets less
        left = [name for name in self.partial if name not in used and worth(name) > 0.5]
        return max(left, key=worth, default=None)


def _worth(group: Sequence[int], labels: Sequence[int], missing: Counter[int], room: int) -> float:
    """Which part of a group is missing in the validation set; nothing if it is too large for what is left of that."""
    if len(group) > room:
        return 0.0
    counts = Counter(labels[index] for index in group)
    return sum(min(count, max(missing[label], 0)) for label, count in counts.items()) / len(group)


def save_split(file: Path, names: Iterable[str]) -> None:
    """Write the names of the validation videos, one a line; the file is there whole or not at all."""
    with replacing(file, shared=True) as partial:
        text = "".join(f"{name}\n" for name in names)
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def load_split(file: Path, names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Read which videos of a training set a file keeps for validation.

    Args:
        file: As `save_split` writes it.
        names: Names of all training videos.

    Returns:
        Indices for training and for validation, ascending.

    Raises:
        ValueError: If the file names a video that is none of them, or leaves nothing on one side.
    """
    chosen = {line for line in file.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if line}
    unknown = sorted(chosen - set(names))
    if unknown:
        raise ValueError(
            f"`val_file` must name videos of the training set, got {file} with {first_names(unknown)}. "
            "Name another file, or delete this one to choose anew."
        )
    if not 0 < len(chosen) < len(set(names)):
        raise ValueError(
            f"`val_file` must name some of the {len(names)} training videos, got {file} with {len(chosen)}."
        )
    training = [index for index, name in enumerate(names) if name not in chosen]
    return training, [index for index, name in enumerate(names) if name in chosen]


def _quotas(counts: Counter[int], total: int) -> dict[int, int]:
    """Share a number of examples out over the labels, the largest remainders first."""
    exact = {label: total * count / counts.total() for label, count in counts.items()}
    quota = {label: int(share) for label, share in exact.items()}
    remainders = sorted(exact, key=lambda label: (quota[label] - exact[label], label))
    for label in remainders[: total - sum(quota.values())]:
        quota[label] += 1
    return quota
