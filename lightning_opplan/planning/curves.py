"""Performance-epoch curves: the four families of the paper, their fit, and the knee.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.3, eq. 3-4 and Table 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.outliers import regular_points
from lightning_opplan.planning.projection import NUM_DECAYS, Array, Family, decayed, rate_range, solve_by_projection

__all__ = [
    "CurveFit",
    "Family",
    "Mode",
    "Solver",
    "decayed",
    "falls",
    "fit_curve",
    "fit_of",
    "num_parameters",
    "sounds_lower",
]

Mode = Literal["max", "min"]
Solver = Literal["varpro", "trf"]

_LOWER_IS_BETTER = re.compile(
    r"(^|[^a-z])(\w*loss|\w*error|err|mse|rmse|mae|nll|perplexity|ppl)([^a-z]|$)", re.IGNORECASE
)
_FLAT = 1e-12  # a curve whose values span less of their size has no knee


def sounds_lower(monitor: str) -> bool:
    """Whether a metric is called as if lower were better.

    Example:
        >>> sounds_lower("val/loss"), sounds_lower("val/accuracy")
        (True, False)
    """
    return _LOWER_IS_BETTER.search(monitor) is not None


def falls(values: Sequence[float]) -> bool:
    """Whether a curve is best at its beginning, and three of four steps lead down: a loss that is taken for a score.

    Example:
        >>> falls([0.9, 0.7, 0.6, 0.62, 0.55, 0.5]), falls([0.9, 0.7, 0.8, 0.6])
        (True, False)
    """
    down = sum(after < before for before, after in pairwise(values))
    return len(values) > 2 and values[0] == max(values) and 4 * down >= 3 * (len(values) - 1)


@dataclass(frozen=True, kw_only=True)
class CurveFit:
    """A fitted performance-epoch curve and its knee.

    Attributes:
        family: The family of Table 1 that was fitted.
        mode: Whether a higher (`"max"`) or a lower (`"min"`) value is better.
        epochs: The epochs of the finite values that were fitted, ascending.
        parameters: α1, α2, … in the order of Table 1 and in the units of the values, with time in epochs.
        knee_epoch: The epoch among `epochs` at which the fitted curve is best; the first one if several are.
            ``None`` for a constant curve. An ``int`` where the epoch is whole.
        knee_value: The fitted value there, no better than the best observed one (a fit may leave the range
            of the metric, an observation cannot). The constant, for a constant curve.
        rmse: Root mean square error of the fit, in the units of the values.
        r_squared: Coefficient of determination; 0 for a constant curve.
    """

    family: Family
    mode: Mode
    epochs: tuple[float, ...]
    parameters: tuple[float, ...]
    knee_epoch: float | None
    knee_value: float
    rmse: float
    r_squared: float

    def predict(self, epochs: ArrayLike) -> Array:
        """Evaluate the fitted curve.

        Args:
            epochs: Epochs of any shape; 0 stands for the weights before the first epoch.

        Returns:
            Values of the same shape, in the units of the fitted values, not clamped.
        """
        times = np.asarray(epochs, dtype=np.float64)
        constant, *middle, linear, quadratic = self.parameters
        curve = constant + linear * times + quadratic * times**2
        for amplitude, exponent in zip(middle[::2], middle[1::2], strict=True):
            curve = curve + amplitude * decayed(self.family, times, -exponent)
        return np.asarray(curve)


def num_parameters(family: Family) -> int:
    """Return the number of parameters of a family of Table 1."""
    return 3 + 2 * NUM_DECAYS[family]


def fit_of(points: Sequence[tuple[float, float | None]], family: Family, mode: Mode) -> CurveFit | None:
    """Return the curve through some validations, single outliers left out as `KneeRule` does.

    ``None`` where they are too few to fit it, or all the same.
    """
    regular = regular_points(points, at_least=num_parameters(family))
    if len(regular) < num_parameters(family) or len({value for _, value in regular}) < 2:
        return None
    epochs, values = zip(*regular, strict=True)
    return fit_curve(values, family, mode=mode, epochs=epochs)


def fit_curve(
    values: Sequence[float] | Array,
    family: Family = "exponential",
    *,
    mode: Mode = "max",
    first_epoch: int = 1,
    epochs: Sequence[float] | None = None,
    min_delta: float = 0.0,
    solver: Solver = "varpro",
) -> CurveFit:
    """Fit a performance-epoch curve and find its knee.

    The fit is a bounded least squares problem. With the exponents fixed it is linear with signs given, so the
    default solver searches the exponents alone: globally, with the same result on every machine and every
    call. It cannot fail to converge.

    Args:
        values: One value per epoch, on any scale. Non-finite ones are left out, the others keep their epoch.
        family: A family of Table 1.
        mode: `"max"` if a higher value is better, `"min"` if a lower one is.
        first_epoch: Epoch of the first value: 1 for the value after one epoch, 0 where the series begins with
            y₀, the value of the weights before any epoch.
        epochs: The epochs themselves, ascending, where they are not consecutive. Replaces `first_epoch`.
        min_delta: The knee is the first epoch whose fitted value is within `min_delta` of the best one.
        solver: `"varpro"` (variable projection) or `"trf"`, the bounded Trust Region Reflective algorithm that
            the paper names, from several fixed starts.

    Raises:
        ValueError: If there are fewer finite values than parameters of the family, or an argument is unknown.

    References:
        Section 3.3, eq. 4 and Table 1. Differs from the paper: the knee is sought among the observed epochs.
        The fitted curve is concave, so this decides the stop alike and never extrapolates a value.

    Example:
        >>> fit_curve([0.9 - 0.8 * 0.7**t - 0.0004 * t * t for t in range(1, 31)]).knee_epoch
        10
    """
    checked_choice("family", family, get_args(Family))
    checked_choice("mode", mode, get_args(Mode))
    checked_choice("solver", solver, get_args(Solver))
    if not min_delta >= 0:
        raise ValueError(f"`min_delta` must be a number ≥ 0 in the units of the metric, got {min_delta!r}.")
    observed = np.asarray(values, dtype=np.float64)
    times = np.asarray(epochs if epochs is not None else np.arange(len(observed)) + first_epoch, np.float64)
    if observed.ndim != 1 or observed.shape != times.shape:
        raise ValueError(
            f"`values` must be one-dimensional with one epoch each, got shapes {observed.shape} and {times.shape}."
        )
    if (np.diff(times) <= 0).any() or (len(times) and times[0] < 0):
        raise ValueError(f"`epochs` must be ascending and not negative, got {times.tolist()!r}.")
    finite = np.isfinite(observed)
    observed, times = observed[finite], times[finite]
    required = num_parameters(family)
    if len(observed) < required:
        raise ValueError(
            f"`values` must hold at least {required} finite values for the family {family!r}, got {len(observed)}."
        )

    sign = 1.0 if mode == "max" else -1.0
    low, span = float(observed.min()), float(np.ptp(observed))
    if not span > _FLAT * float(np.abs(observed).max()):
        constant = (float(observed.mean()), *(0.0,) * (required - 1))
        return CurveFit(
            family=family, mode=mode, epochs=tuple(times.tolist()), parameters=constant,
            knee_epoch=None, knee_value=constant[0], rmse=float(observed.std()), r_squared=0.0,
        )  # fmt: skip
    scaled = sign * (observed - low) / span
    solve = solve_by_projection if solver == "varpro" else _solve_by_trf
    linear, rates = solve(family, times, scaled)

    design = _design(family, times, rates)
    fitted = design @ linear
    residual = float(((fitted - scaled) ** 2).sum())
    best = int(np.argmax(fitted >= fitted.max() - min_delta / span))
    knee_epoch = float(times[best])
    return CurveFit(
        family=family,
        mode=mode,
        epochs=tuple(times.tolist()),
        parameters=_in_units(linear, rates, offset=low, factor=sign * span),
        knee_epoch=int(knee_epoch) if knee_epoch.is_integer() else knee_epoch,
        knee_value=low + sign * span * min(float(fitted[best]), float(scaled.max())),
        rmse=span * float(np.sqrt(residual / len(times))),
        r_squared=1.0 - residual / float(((scaled - scaled.mean()) ** 2).sum()),
    )


def _design(family: Family, times: Array, rates: Array) -> Array:
    """Columns 1, t, t², then one decay per rate."""
    return np.stack([np.ones_like(times), times, times**2, *(decayed(family, times, rate) for rate in rates)], 1)


def _in_units(linear: Array, rates: Array, *, offset: float, factor: float) -> tuple[float, ...]:
    """Bring the coefficients of the scaled curve into the order of Table 1 and the units of the values."""
    constant, slope, quadratic, *amplitudes = (factor * linear).tolist()
    pairs = [number for pair in zip(amplitudes, (-rates).tolist(), strict=True) for number in pair]
    return (offset + constant, *pairs, slope, quadratic)


def _solve_by_trf(family: Family, times: Array, scaled: Array) -> tuple[Array, Array]:
    """Fit all parameters at once by bounded Trust Region Reflective least squares; the best of several starts."""
    from scipy.optimize import least_squares  # here, as it takes half a second to import

    num_decays = NUM_DECAYS[family]
    low, high = rate_range(family, times)
    length = float(times[-1]) or 1.0
    starts = np.geomspace(low * 1.5, high / 1.5, 4)
    rate_starts = [(rate,) for rate in starts] if num_decays == 1 else list(combinations(starts, 2))
    relative = times / length  # the quadratic in [0, 1]: comparable steps for all parameters

    def split(x: Array) -> tuple[Array, Array]:
        return x[: 3 + num_decays], x[3 + num_decays :]

    def residuals(x: Array) -> Array:
        linear, rates = split(x)
        decays = sum(a * decayed(family, times, r) for a, r in zip(linear[3:], rates, strict=True))
        return np.asarray(linear[0] + linear[1] * relative + linear[2] * relative**2 + decays - scaled)

    lower = np.array([-np.inf, -np.inf, -np.inf, *(-np.inf,) * num_decays, *(low,) * num_decays])
    upper = np.array([np.inf, np.inf, 0.0, *(0.0,) * num_decays, *(high,) * num_decays])
    best = None
    for rates in rate_starts:
        start = np.array([scaled[-1], 0.0, -0.1, *(-0.5 / num_decays,) * num_decays, *rates])
        result = least_squares(residuals, start, bounds=(lower, upper), method="trf", max_nfev=500)
        if best is None or result.cost < best.cost:
            best = result
    assert best is not None
    linear, rates_found = split(np.asarray(best.x, dtype=np.float64))
    return linear / np.array([1.0, length, length**2, *(1.0,) * num_decays]), rates_found
