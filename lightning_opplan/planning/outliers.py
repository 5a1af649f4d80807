"""Single validations that are so far from their neighbours that they say nothing of the curve."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lightning_opplan.planning.projection import Array

__all__ = ["is_outlier", "regular_points"]

_NOISE: Final = 8.0
"""Standard deviations of the noise beyond the neighbours."""

_SPAN: Final = 0.1
"""Share of what the curve spans: what is nearer to its neighbours does not harm a fit."""

_REACH: Final = 2


def is_outlier(values: Sequence[float] | Array) -> Array:
    """Return which values lie far outside of what the two before and the two after them span.

    Far is eight standard deviations of the noise, taken from second differences, and a tenth of what the smoothed
    curve spans. The first value is none, as training may rise steeply from it; neither is a last one that lies where
    the step before it leads to, twice over.

    Args:
        values: Finite values, by epoch.

    Example:
        >>> is_outlier([0.5, 0.56, 0.6, 0.63, 0.65, 0.1, 0.67, 0.68, 0.69, 0.69, 0.7, 0.7]).nonzero()[0].tolist()
        [5]
    """
    series = np.asarray(values, np.float64)
    found = np.zeros(len(series), bool)
    if len(series) < 2 * _REACH + 1:
        return found
    noise = 1.4826 * float(np.median(np.abs(np.diff(series, 2)))) / math.sqrt(6.0)
    smoothed = np.sort(sliding_window_view(series, 2 * _REACH + 1), axis=1)[:, _REACH]
    allowed = np.full(len(series), max(_NOISE * noise, _SPAN * float(np.ptp(smoothed))))
    allowed[-1] += 2.0 * abs(series[-2] - series[-3])
    highest, lowest = (np.pad(series, _REACH, constant_values=edge) for edge in (-np.inf, np.inf))
    others = [shift for shift in range(2 * _REACH + 1) if shift != _REACH]
    above = series - np.max([highest[shift : shift + len(series)] for shift in others], axis=0)
    below = np.min([lowest[shift : shift + len(series)] for shift in others], axis=0) - series
    beyond = np.maximum(above, below)
    found[1:] = (beyond > allowed)[1:]
    return found


def regular_points(points: Sequence[tuple[float, float | None]], *, at_least: int = 1) -> list[tuple[float, float]]:
    """Return the finite values that are no outliers, by epoch; with them, should too few be left."""
    finite = [(epoch, value) for epoch, value in points if value is not None]
    outliers = is_outlier([value for _, value in finite])
    regular = [point for point, is_out in zip(finite, outliers, strict=True) if not is_out]
    return regular if len(regular) >= at_least else finite
