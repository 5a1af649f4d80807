"""Cut an internal validation set from a training set (section 5.1)."""

import random
from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["internal_split"]


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
    quota = _quotas(Counter(labels), max(round(wanted), 1))
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(("alone", index) if group is None else ("group", group), []).append(index)
    order = list(members.values())
    random.Random(seed).shuffle(order)
    # Large groups first: they are the hardest to place.
    order.sort(key=len, reverse=True)

    taken: Counter[int] = Counter()
    validation: list[int] = []
    for group_members in order:
        counts = Counter(labels[index] for index in group_members)
        before = sum(abs(quota[label] - taken[label]) for label in counts)
        after = sum(abs(quota[label] - taken[label] - count) for label, count in counts.items())
        if after < before and len(validation) + len(group_members) <= sum(quota.values()):
            taken.update(counts)
            validation += group_members
    chosen = set(validation)
    training = [index for index in range(len(labels)) if index not in chosen]
    if not validation or not training:
        raise ValueError(
            f"`size` must be large enough for whole groups, got {size!r} of {len(labels)} examples in "
            f"{len(members)} groups: one side would be empty."
        )
    return training, sorted(validation)


def _quotas(counts: Counter[int], total: int) -> dict[int, int]:
    """Share a number of examples out over the labels, the largest remainders first."""
    exact = {label: total * count / counts.total() for label, count in counts.items()}
    quota = {label: int(share) for label, share in exact.items()}
    remainders = sorted(exact, key=lambda label: (quota[label] - exact[label], label))
    for label in remainders[: total - sum(quota.values())]:
        quota[label] += 1
    return quota
