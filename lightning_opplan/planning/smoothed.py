"""A stop by the mean of neighbouring validations, without a fitted curve.

Chosen by the test accuracy of the weights that it keeps in small trainings; see docs/measurements.md.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from lightning_opplan.planning.curves import Mode

__all__ = ["smoothed_stop"]

_HALF: Final = 2
"""Validations on each side of the one that a mean is centred on."""

_SHORTEST: Final = 5.0
"""Epochs by which the best mean must be past, where the patience is no shorter."""


def smoothed_stop(
    points: Sequence[tuple[float, float | None]], *, patience: float, min_points: int, mode: Mode = "max"
) -> bool:
    """Whether the mean of five validations has gained no more than the noise over the last 2·`patience` epochs.

    The noise σ is 1.4826 · median |second difference| / √6. Values that are not finite are left out; the value before
    training does not count. A mean is centred; at the beginning it is of those that are there, and of the last two
    validations there is none.

    Args:
        points: Epochs, ascending, and their values.
        patience: Epochs; the best mean is at least `patience` or five epochs past, whichever is less.
        min_points: Validations before the first decision.
        mode: Whether a higher or a lower value is better.

    Example:
        >>> flat = [(epoch, 0.5) for epoch in range(1, 41)]
        >>> smoothed_stop(flat, patience=10, min_points=10)
        True
        >>> smoothed_stop([(epoch, epoch / 100) for epoch in range(1, 41)], patience=10, min_points=10)
        False
    """
    finite = [(epoch, value) for epoch, value in points if epoch > 0 and value is not None]
    if len(finite) < max(min_points, 2 * _HALF + 1):
        return False
    epochs = np.array([epoch for epoch, _ in finite])
    values = np.array([value for _, value in finite]) * (1.0 if mode == "max" else -1.0)
    total = np.concatenate([[0.0], np.cumsum(values)])
    centres = np.arange(len(values) - _HALF)
    first = np.maximum(centres - _HALF, 0)
    means = (total[centres + _HALF + 1] - total[first]) / (centres + _HALF + 1 - first)
    best = int(np.argmax(means))
    before = means[epochs[: len(means)] <= epochs[-1] - 2 * patience]
    if not len(before):
        return False
    noise = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / np.sqrt(6.0)
    is_past = epochs[-1] - epochs[best] >= min(patience, _SHORTEST)
    return bool(means[best] - before.max() <= noise + 1e-12 and is_past)
