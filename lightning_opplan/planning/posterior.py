"""How sure a fitted curve is: curves that could as well have given the observed values.

They are drawn by a parametric bootstrap: values with the noise that the fit leaves are drawn around the fitted curve,
and the same bounded fit is made of them. The variance of the noise is itself drawn, as few values say little about it.
The draws depend on nothing but the values, so a resumed training decides alike.

References:
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 6.5.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from lightning_opplan.planning.curves import CurveFit, num_parameters
from lightning_opplan.planning.projection import Array, refit

__all__ = ["CurvePosterior"]

_NUM_DRAWS: Final = 200


@dataclass(frozen=True, kw_only=True)
class CurvePosterior:
    """Curves that could as well have given the values behind a fit; all oriented so that higher is better.

    Attributes:
        fit: The fit.
        observed: Fitted values of each draw at the epochs of the fit, shape (draws, epochs).
        ahead: The same at the epochs to come, shape (draws, horizon).
    """

    fit: CurveFit
    observed: Array
    ahead: Array

    @classmethod
    def of(cls, fit: CurveFit, horizon: int = 0) -> "CurvePosterior":
        """Draw the curves of a fit, and how they go on for `horizon` epochs."""
        times = np.asarray(fit.epochs)
        sign = 1.0 if fit.mode == "max" else -1.0
        curve = sign * fit.predict(times)
        freedom = max(len(times) - num_parameters(fit.family), 1)
        noise, chi_square = _standard_draws(len(times), freedom)
        scale = fit.rmse * np.sqrt(len(times) / chi_square)
        ahead = times[-1] + np.arange(1, horizon + 1)
        drawn = refit(fit.family, times, curve + scale[:, None] * noise, np.concatenate([times, ahead]))
        return cls(fit=fit, observed=drawn[:, : len(times)], ahead=drawn[:, len(times) :])

    @property
    def standard_error(self) -> float:
        """Standard error of the fitted value at the knee."""
        return float(self.observed[:, self._knee].std())

    def probability_of_gain(self, gain: float) -> float:
        """Return the probability that an epoch to come is better than the knee by more than `gain`."""
        if not self.ahead.shape[1]:
            return 0.0
        return float((self.ahead.max(axis=1) - self.observed[:, self._knee] > gain).mean())

    def optimistic_value(self, z: float) -> float:
        """Return a bound on the value that training may still reach.

        Args:
            z: Standard deviations above the mean, 3.09 for the quantile .999.

        Returns:
            The bound, in the units and orientation of the metric.
        """
        best = np.concatenate([self.observed, self.ahead], axis=1).max(axis=1)
        bound = float(best.mean() + z * best.std())
        return bound if self.fit.mode == "max" else -bound

    def concave_bound(self, epochs: float, z: float) -> float:
        """Return a bound on the value that training may still reach if its curve rises no faster than it does now.

        That holds for any concave curve, whatever its family, where the fitted one carried on may bend down too soon:
        many epochs before its end, a slow rise looks like the beginning of a parabola.

        Args:
            epochs: How many are still to come.
            z: Standard deviations above the mean, 3.09 for the quantile .999.

        Returns:
            The bound, in the units and orientation of the metric.
        """
        step = self.fit.epochs[-1] - self.fit.epochs[-2]
        rise = np.maximum(self.observed[:, -1] - self.observed[:, -2], 0.0) / step
        best = np.maximum(self.observed.max(axis=1), self.observed[:, -1] + rise * max(epochs, 0.0))
        bound = float(best.mean() + z * best.std())
        return bound if self.fit.mode == "max" else -bound

    @property
    def _knee(self) -> int:
        return self.fit.epochs.index(float(self.fit.knee_epoch or 0.0))


@cache
def _standard_draws(num_values: int, freedom: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((_NUM_DRAWS, num_values)), generator.chisquare(freedom, _NUM_DRAWS)
