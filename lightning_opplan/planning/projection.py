"""Least squares on the performance-epoch curves of Table 1, by variable projection.

With the exponents fixed, a curve is linear with some signs given: its best coefficients are exact, and only the
exponents are searched, on a grid that is zoomed into.

References:
    Golub and Pereyra, "Separable nonlinear least squares: the variable projection method", 2003.
"""

from functools import cache
from itertools import combinations, combinations_with_replacement, product
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["NUM_DECAYS", "Array", "Family", "Projected", "decayed", "rate_range", "refit", "solve_by_projection"]

Family = Literal["power", "multi-power", "exponential", "multi-exponential"]
Array = NDArray[np.float64]

NUM_DECAYS: Final = {"power": 1, "multi-power": 2, "exponential": 1, "multi-exponential": 2}
_ZOOMS: Final = 2
_RIDGE = 1e-13  # keeps the normal equations solvable where a slow decay looks like the quadratic


def decayed(family: Family, times: ArrayLike, rate: ArrayLike) -> Array:
    """Return the decaying term of a family: e^(-rate·t), or (t+1)^(-rate) for the power families."""
    times, rate = np.asarray(times, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    scale = np.log1p(times) if family in ("power", "multi-power") else times
    return np.asarray(np.exp(-rate * scale), dtype=np.float64)


def rate_range(family: Family, times: Array) -> tuple[float, float]:
    """The rates worth a search: slower ones look like the quadratic, faster ones end within the first epoch."""
    if family in ("power", "multi-power"):
        return 0.05, 8.0
    return 0.5 / (float(np.ptp(times)) + 1.0), 4.0


def solve_by_projection(family: Family, times: Array, scaled: Array) -> tuple[Array, Array]:
    """Search the rates on a grid that is zoomed into; the linear part is exact for each of them.

    Returns:
        Coefficients of 1, t, t² and of each decay, and the rates.
    """
    low, high = rate_range(family, times)
    candidates, step = _coarse_grid(family, times)
    num_fine = 16 if NUM_DECAYS[family] == 1 else 7
    problem = Projected(family, times, scaled)
    best_rates, best_gain = candidates[0], -1.0
    for zoom in range(_ZOOMS + 1):
        gains = problem.gains(candidates)
        winner = int(gains.argmax())
        if gains[winner] > best_gain:
            best_rates, best_gain = candidates[winner], float(gains[winner])
        if zoom < _ZOOMS:
            around = step ** np.linspace(-1.0, 1.0, num_fine)
            axes = np.clip(best_rates[:, None] * around, low, high)
            candidates = axes.T if NUM_DECAYS[family] == 1 else np.array(list(product(*axes)))
            step **= 2 / (num_fine - 1)
    return problem.linear_part(best_rates), best_rates


def refit(family: Family, times: Array, series: Array, at: Array) -> Array:
    """Fit many series over the same epochs, on the coarse grid of rates alone, and evaluate the curves.

    Args:
        family: The family.
        times: Epochs (n).
        series: Values (S, n), oriented so that higher is better.
        at: Epochs to evaluate at (m).

    Returns:
        Values of the fitted curves, shape (S, m).
    """
    rates, _ = _coarse_grid(family, times)
    problem = Projected(family, times, series[0])
    gram, right, norms = problem.equations(rates, series)
    num_series, num_rates, num_columns = right.shape
    flat = np.broadcast_to(gram, (num_series, *gram.shape)).reshape(-1, num_columns, num_columns)
    gains = np.max([_solve_on(s, flat, right.reshape(-1, num_columns))[1] for s in _supports(num_columns)], axis=0)
    best = gains.reshape(num_series, num_rates).argmax(axis=1)
    bounded = _best_bounded(gram[best], right[np.arange(num_series), best])
    scales = -bounded / np.concatenate([np.full((num_series, 1), problem.square_norm), norms[best]], axis=1)

    def curved(epochs: Array) -> Array:
        decays = decayed(family, epochs, rates[best][:, :, None])  # (S, decays, epochs)
        squares = scales[:, :1] * (epochs - problem.mean) ** 2
        return np.asarray(squares + np.einsum("sk,ske->se", scales[:, 1:], decays))

    level, slope = (series - curved(times)) @ problem.free.T[:, 0], (series - curved(times)) @ problem.free.T[:, 1]
    length = np.sqrt(problem.centred @ problem.centred)
    straight = level[:, None] * len(times) ** -0.5 + slope[:, None] * (at - problem.mean) / length
    return np.asarray(straight + curved(at))


def _coarse_grid(family: Family, times: Array) -> tuple[Array, float]:
    """Rates to try, one row for each try, and the ratio of neighbouring ones."""
    low, high = rate_range(family, times)
    num_coarse = 40 if NUM_DECAYS[family] == 1 else 12
    step = (high / low) ** (1 / (num_coarse - 1))
    axis = low * step ** np.arange(num_coarse)
    return axis[:, None] if NUM_DECAYS[family] == 1 else np.array(list(combinations_with_replacement(axis, 2))), step


class Projected:
    """The least squares problem without the columns 1 and t, which are free and need no search.

    What remains has a coefficient for t² and one for each decay. All of them must not be positive, so the
    columns are flipped and non-negative coefficients sought.
    """

    def __init__(self, family: Family, times: Array, scaled: Array) -> None:
        self.family, self.times, self.scaled = family, times, scaled
        self.mean = float(times.sum()) / len(times)
        self.centred = times - self.mean
        self.free: Array = np.empty((2, len(times)), dtype=np.float64)
        self.free[0] = len(times) ** -0.5
        self.free[1] = self.centred / np.sqrt(self.centred @ self.centred)
        self.square = self._rest(self.centred**2)
        self.square_norm = float(np.sqrt(self.square @ self.square))
        self.square /= self.square_norm

    def _rest(self, rows: Array) -> Array:
        return rows - (rows @ self.free.T) @ self.free

    def equations(self, candidates: Array, series: Array) -> tuple[Array, Array, Array]:
        """Set up the normal equations of each row of rates (m, number of decays) for each series (S, n).

        Returns:
            Gram matrices (m, k, k) of unit columns, their products with the series (S, m, k), decay norms (m, k-1).
        """
        decays = self._rest(decayed(self.family, self.times, candidates[:, :, None]))
        norms = np.sqrt(np.einsum("mkn,mkn->mk", decays, decays)) + 1e-300
        decays /= norms[:, :, None]
        num_columns = decays.shape[1] + 1
        gram = np.empty((len(candidates), num_columns, num_columns))
        gram[:, 1:, 1:] = decays @ decays.transpose(0, 2, 1)
        gram[:, 0, 0] = 1.0
        gram[:, 0, 1:] = gram[:, 1:, 0] = decays @ self.square
        targets = self._rest(series)
        right = np.empty((len(series), len(candidates), num_columns))
        right[:, :, 0] = -(targets @ self.square)[:, None]
        right[:, :, 1:] = -np.einsum("mkn,sn->smk", decays, targets)
        return gram, right, norms

    def gains(self, candidates: Array) -> Array:
        """By how much each row of rates (m, number of decays) can reduce the squared error; shape (m,)."""
        gram, (right,), _ = self.equations(candidates, self.scaled[None])
        reductions = [_solve_on(support, gram, right)[1] for support in _supports(right.shape[1])]
        return np.asarray(np.max(reductions, axis=0))

    def linear_part(self, rates: Array) -> Array:
        """Coefficients of 1, t, t² and of each decay for fixed rates."""
        gram, (right,), norms = self.equations(rates[None], self.scaled[None])
        bounded = _best_bounded(gram, right)[0]
        quadratic, *amplitudes = (-bounded / np.array([self.square_norm, *norms[0]])).tolist()
        curved = quadratic * self.centred**2
        for amplitude, rate in zip(amplitudes, rates, strict=True):
            curved = curved + amplitude * decayed(self.family, self.times, rate)
        level, slope = self.free @ (self.scaled - curved)
        slope /= np.sqrt(self.centred @ self.centred)
        constant = level * len(self.times) ** -0.5 - slope * self.mean + quadratic * self.mean**2
        return np.array([constant, slope - 2 * quadratic * self.mean, quadratic, *amplitudes])


def _best_bounded(gram: Array, right: Array) -> Array:
    """The best non-negative coefficients of each problem, shape (m, k): the best feasible ones over all supports."""
    bounded, gain = np.zeros_like(right), np.zeros(len(right))
    for support in _supports(right.shape[1]):
        x, reduction = _solve_on(support, gram, right)
        better = reduction > gain
        bounded[better], gain[better] = 0.0, reduction[better]
        bounded[np.ix_(np.flatnonzero(better), np.array(support))] = x[better]
    return bounded


@cache
def _supports(num_columns: int) -> tuple[tuple[int, ...], ...]:
    """The sets of columns that may have coefficients other than zero."""
    sizes = range(1, num_columns + 1)
    return tuple(support for size in sizes for support in combinations(range(num_columns), size))


def _solve_on(support: tuple[int, ...], gram: Array, right: Array) -> tuple[Array, Array]:
    """Solve many small least squares problems on some of their columns.

    Returns:
        Coefficients of the support's columns, shape (m, size), and by how much they reduce the squared error,
        shape (m,): exact also where the equations are nearly singular, and 0 where a coefficient is negative.
    """
    if len(support) == 1:
        x = right[:, support]
        return x, np.where(x[:, 0] > 0, x[:, 0] ** 2, 0.0)
    if len(support) == 2:
        first, second = support
        a, b, cross = right[:, first], right[:, second], gram[:, first, second]
        scale = 1.0 / (1.0 + _RIDGE - cross * cross)
        u, v = (a - cross * b) * scale, (b - cross * a) * scale
        reduction = 2.0 * (u * a + v * b) - (u * u + v * v + 2.0 * cross * u * v)
        return np.stack([u, v], axis=1), np.where((u >= 0) & (v >= 0), reduction, 0.0)
    index = list(support)
    block, part = gram[:, index][:, :, index], right[:, index]
    ridged = block + _RIDGE * np.eye(len(index))
    x = np.asarray(np.linalg.solve(ridged, part[:, :, None]), dtype=np.float64)[:, :, 0]
    reduction = 2.0 * (x * part).sum(axis=1) - np.einsum("mi,mij,mj->m", x, block, x)
    return x, np.where((x >= 0).all(axis=1), reduction, 0.0)
