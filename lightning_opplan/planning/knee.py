"""The knee rule: from the validations so far to "go on" or "stop, and take the weights of this epoch".

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from lightning_opplan.planning.curves import CurveFit, Family, Mode, Solver, fit_curve, num_parameters
from lightning_opplan.planning.messages import checked_choice

__all__ = ["KneeDecision", "KneeRule", "Point"]

Point = tuple[float, float | None]
"""An epoch and the value of its validation; ``None`` where that was not finite. Epoch 0 is before any training."""

_PLAUSIBLE: Final = 4.0
"""How far below the fitted curve's maximum, in RMSE, an epoch may be and still become the knee.

On 463 published validation curves no epoch that was ever more than 2.4 RMSE below became the knee later (T = 10,
exponential family; `benchmarks/curves.py`).
"""


@dataclass(frozen=True, kw_only=True)
class KneeDecision:
    """What the rule says of a curve.

    Attributes:
        stop: Whether training should stop now.
        knee_epoch: The epoch whose weights are the best by the fit; by observation if there is no fit. ``None`` as
            long as there is no finite value.
        knee_value: The fitted value there; the observed one if there is no fit.
        fit: The fit behind it, if the curve was long enough and not constant.
        plausible: The epochs that may still become the knee.
    """

    stop: bool
    knee_epoch: float | None
    knee_value: float | None
    fit: CurveFit | None
    plausible: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class KneeRule:
    """Stop once the fitted curve peaked T epochs ago.

    Attributes:
        patience: T of the paper: epochs (not validations) to go on after the knee.
        curve: Family of the fitted curve, of Table 1.
        confirm: Consecutive validations that must ask for the stop.
        min_points: Validations after training began before the first fit.
        min_delta: The knee is the first epoch whose fitted value is within `min_delta` of the best one.
        solver: How the curve is fitted, see `fit_curve`.
    """

    patience: float = 10
    curve: Family = "exponential"
    confirm: int = 1
    min_points: int = 10
    min_delta: float = 0.0
    solver: Solver = "varpro"

    def __post_init__(self) -> None:
        checked_choice("curve", self.curve, get_args(Family))
        checked_choice("solver", self.solver, get_args(Solver))
        if not 0 <= self.patience < math.inf:
            raise ValueError(f"`patience` must be a number of epochs ≥ 0, got {self.patience!r}.")
        if self.confirm < 1:
            raise ValueError(f"`confirm` must be at least 1, got {self.confirm!r}.")
        if not self.min_delta >= 0:
            raise ValueError(f"`min_delta` must be a number ≥ 0 in the units of the metric, got {self.min_delta!r}.")
        if self.min_points < num_parameters(self.curve):
            raise ValueError(
                f"`min_points` must be at least {num_parameters(self.curve)}, the number of parameters of the family "
                f"{self.curve!r}, got {self.min_points!r}."
            )

    def decide(self, points: Sequence[Point], mode: Mode = "max") -> KneeDecision:
        """Decide from the validations so far.

        The decision follows from the points alone, so it is the same after a resume.

        Args:
            points: Epochs, ascending, and their values.
            mode: Whether a higher or a lower value is better.
        """
        fit = self._fit(points, mode)
        if fit is None or fit.knee_epoch is None:
            epoch, value = _best_observed(points, mode)
            every = tuple(point[0] for point in points)
            return KneeDecision(stop=False, knee_epoch=epoch, knee_value=value, fit=None, plausible=every)
        return KneeDecision(
            stop=self._asks(fit, points)
            and all(self._asks(self._fit(points[:-back], mode), points[:-back]) for back in range(1, self.confirm)),
            knee_epoch=fit.knee_epoch,
            knee_value=fit.knee_value,
            fit=fit,
            plausible=_plausible(fit),
        )

    def _fit(self, points: Sequence[Point], mode: Mode) -> CurveFit | None:
        if sum(epoch > 0 and value is not None for epoch, value in points) < self.min_points:
            return None
        return fit_curve(
            [math.nan if value is None else value for _, value in points],
            self.curve,
            mode=mode,
            epochs=[epoch for epoch, _ in points],
            min_delta=self.min_delta,
            solver=self.solver,
        )

    def _asks(self, fit: CurveFit | None, points: Sequence[Point]) -> bool:
        return fit is not None and fit.knee_epoch is not None and points[-1][0] >= fit.knee_epoch + self.patience


def _best_observed(points: Sequence[Point], mode: Mode) -> Point | tuple[None, None]:
    finite = [(value, epoch) for epoch, value in points if value is not None]
    if not finite:
        return None, None
    value, epoch = max(finite, key=lambda row: row[0]) if mode == "max" else min(finite, key=lambda row: row[0])
    return epoch, value


def _plausible(fit: CurveFit) -> tuple[float, ...]:
    fitted = fit.predict(fit.epochs) * (1 if fit.mode == "max" else -1)
    below = fitted.max() - fitted
    near = np.flatnonzero(below <= _PLAUSIBLE * fit.rmse)
    return tuple(fit.epochs[index] for index in sorted({*near.tolist(), fit.epochs.index(float(fit.knee_epoch or 0))}))
