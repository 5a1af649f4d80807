"""The knee rule: from the validations so far to "go on" or "stop, and take the weights of this epoch".

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal, get_args

import numpy as np

from lightning_opplan.messages import checked_choice, checked_numbers
from lightning_opplan.planning.curves import CurveFit, Family, Mode, fit_curve, num_parameters
from lightning_opplan.planning.outliers import regular_points
from lightning_opplan.planning.posterior import CurvePosterior
from lightning_opplan.planning.smoothed import smoothed_stop

__all__ = ["WAIT", "KneeDecision", "KneeRule", "Point", "StopRule", "ValueKind"]

Point = tuple[float, float | None]
"""An epoch and the value of its validation; ``None`` where that was not finite. Epoch 0 is before any training."""

ValueKind = Literal["fitted", "observed"]

StopRule = Literal["paper", "smoothed"]

WAIT: Final = 5
"""Epochs, in units of the patience, for which a search waits for trainings that start late, unless it is the paper's.

With three, plateaus of 45 epochs were still taken for the end (docs/measurements.md).
"""

_LEVEL: Final = 0.01
"""Level of the test whether a curve is better than a constant."""

_PLAUSIBLE: Final = 4.0
"""How far below the fitted curve's maximum, in RMSE, an epoch may be and still become the knee.

On 463 published validation curves no epoch that was ever more than 2.4 RMSE below became the knee later (T = 10,
exponential family; `benchmarks/curves.py`).
"""


_RACE_POINTS: Final = 14
_RACE_QUANTILE: Final = 3.09
"""A training is given up for its rival after 14 epochs at the earliest, and by the quantile .999 of what it may
reach."""


@dataclass(frozen=True, kw_only=True)
class KneeDecision:
    """What the rule says of a curve.

    Attributes:
        stop: Whether training should stop now.
        knee_epoch: The epoch whose weights are the best by the fit; by observation if there is no fit. ``None`` as
            long as there is no finite value.
        knee_value: The fitted value there; the observed one if there is no fit.
        fit: The fit behind it, if the curve was long enough and not constant.
        plausible: The epochs that may still become the knee, the likeliest first.
        dropped: Whether the stop is asked for as the rival is out of reach.
    """

    stop: bool
    knee_epoch: float | None
    knee_value: float | None
    fit: CurveFit | None
    plausible: tuple[float, ...]
    dropped: bool = False


@dataclass(frozen=True, kw_only=True)
class KneeRule:
    """Stop once the fitted curve peaked T epochs ago, or, with `max_risk`, once a gain is improbable.

    Attributes:
        patience: T of the paper: epochs (not validations) to go on after the knee.
        curve: Family of the fitted curve, of Table 1.
        confirm: Consecutive validations that must ask for the stop.
        min_points: Validations after training began before the first fit.
        min_delta: The knee is the first epoch whose fitted value is within `min_delta` of the best one.
        check_finite: Stop when the metric becomes NaN or infinite. Otherwise such values are left out of the fit.
        max_risk: Stop, whatever the `patience`, once the probability that any of the next `horizon` epochs is better
            than the knee by more than `min_gain` falls below this. 0 keeps the paper's rule, as does ``None``, in
            whose place a preset may put a value.
        min_gain: What counts as a gain, as a share of the span of the values so far.
        horizon: Epochs to look ahead.
        wait: Do not stop before this epoch as long as the fitted curve is no better than a constant (F-test, 1%): some
            trainings stay at chance for long before they learn. An exactly constant metric stops after the patience.
            For trainings from the start, from weights that have not learned anything. 0 is the paper's rule, as is
            ``None``, in whose place a preset may put a value.
        rule: ``"paper"`` fits a curve and keeps the weights of its knee. ``"smoothed"`` stops once the mean of five
            validations has gained no more than its noise over the last 2T epochs, and keeps the weights of the best
            validation; see `smoothed_stop`.
    """

    patience: float = 10
    curve: Family = "exponential"
    confirm: int = 1
    min_points: int = 10
    min_delta: float = 0.0
    check_finite: bool = True
    max_risk: float | None = None
    min_gain: float = 0.0005
    horizon: int = 20
    wait: float | None = None
    rule: StopRule = "paper"

    def __post_init__(self) -> None:
        checked_numbers(
            self, "patience", "confirm", "min_points", "min_delta", "max_risk", "min_gain", "horizon", "wait"
        )
        checked_choice("curve", self.curve, get_args(Family))
        checked_choice("rule", self.rule, get_args(StopRule))
        if self.wait is not None and not 0 <= self.wait < math.inf:
            raise ValueError(f"`wait` must be a number of epochs ≥ 0, got {self.wait!r}.")
        if not 0 <= self.patience < math.inf:
            raise ValueError(f"`patience` must be a number of epochs ≥ 0, got {self.patience!r}.")
        if self.confirm < 1:
            raise ValueError(f"`confirm` must be at least 1, got {self.confirm!r}.")
        if not self.min_delta >= 0:
            raise ValueError(f"`min_delta` must be a number ≥ 0 in the units of the metric, got {self.min_delta!r}.")
        if self.max_risk is not None and not 0 <= self.max_risk < 1:
            raise ValueError(f"`max_risk` must be a probability below 1, got {self.max_risk!r}.")
        if not self.min_gain >= 0:
            raise ValueError(f"`min_gain` must be a share ≥ 0 of the span of the values, got {self.min_gain!r}.")
        if self.horizon < 1:
            raise ValueError(f"`horizon` must be at least 1 epoch, got {self.horizon!r}.")
        if self.min_points < num_parameters(self.curve):
            raise ValueError(
                f"`min_points` must be at least {num_parameters(self.curve)}, the number of parameters of the family "
                f"{self.curve!r}, got {self.min_points!r}."
            )

    def decide(self, points: Sequence[Point], mode: Mode = "max", *, rival: float | None = None) -> KneeDecision:
        """Decide from the validations so far.

        The decision follows from the points alone, so it is the same after a resume.

        Args:
            points: Epochs, ascending, and their values.
            mode: Whether a higher or a lower value is better.
            rival: A value that has been reached otherwise: stop once this training has no chance to reach it, after
                at least 14 validations.
        """
        if self.rule == "smoothed":
            return self._smoothed(points, mode)
        fit = self._fit(points, mode)
        if fit is not None and fit.knee_epoch is not None:
            dropped = rival is not None and self._is_out_of_reach(fit, rival)
            asks = self._asks(fit, points) and all(
                self._asks(self._fit(points[:-back], mode), points[:-back]) for back in range(1, self.confirm)
            )
            waits = asks and points[-1][0] < (self.wait or 0) and not self.has_learned(points, mode)
            stop = dropped or (asks and not waits)
            if stop or not self._has_come_to_rest(points):
                return KneeDecision(
                    stop=stop,
                    knee_epoch=fit.knee_epoch,
                    knee_value=fit.knee_value,
                    fit=fit,
                    plausible=_plausible(fit),
                    dropped=dropped,
                )
        # In words of section 3.3 a constant has no knee; what no longer changes need not be trained for ever, though.
        epoch, value = _best_observed(points, mode)
        stop = self._has_come_to_rest(points)
        return KneeDecision(stop=stop, knee_epoch=epoch, knee_value=value, fit=None, plausible=_by_value(points, mode))

    def has_learned(self, points: Sequence[Point], mode: Mode = "max") -> bool:
        """Whether the fitted curve is better than a constant: F-test at 1%, without the value before training.

        A curve with too few validations to tell has not.
        """
        trained = [(epoch, value) for epoch, value in regular_points(points) if epoch > 0]
        number, parameters = len(trained), num_parameters(self.curve)
        values = np.array([value for _, value in trained])
        if number <= parameters or float(np.ptp(values)) == 0.0:
            return False
        fit = fit_curve(values, self.curve, mode=mode, epochs=[epoch for epoch, _ in trained])
        if fit.knee_epoch is None:
            return False
        from scipy.special import fdtrc  # here, as it takes half a second to import

        explained = float(((values - values.mean()) ** 2).sum()) - number * fit.rmse**2
        left = max(number * fit.rmse**2 / (number - parameters), 1e-300)
        p_value = float(fdtrc(parameters - 1, number - parameters, explained / (parameters - 1) / left))
        return p_value < _LEVEL

    def valued(
        self, points: Sequence[Point], mode: Mode = "max", kind: ValueKind = "fitted"
    ) -> tuple[float | None, float | None]:
        """Return what the weights of the knee are worth, and its standard error where there is a fit.

        Args:
            points: Epochs, ascending, and their values.
            mode: Whether a higher or a lower value is better.
            kind: The value of the fitted curve (what the authors' release takes), or the one that was observed (what
                the paper says).
        """
        decision = self.decide(points, mode)
        if self.rule == "smoothed" and decision.knee_epoch is not None:
            return dict(points)[decision.knee_epoch], None
        if decision.fit is None or decision.knee_epoch is None:
            return decision.knee_value, None
        if kind == "observed":
            return dict(points)[decision.knee_epoch], decision.fit.rmse
        return decision.knee_value, CurvePosterior.of(decision.fit).standard_error

    def _smoothed(self, points: Sequence[Point], mode: Mode) -> KneeDecision:
        """The best validation, of equal ones the last, and whether their mean has stopped to rise."""
        trained = [point for point in points if point[0] > 0]
        epoch, value = _best_observed(tuple(reversed(points)), mode)
        stop = smoothed_stop(trained, patience=self.patience, min_points=self.min_points, mode=mode)
        stop = stop or self._has_come_to_rest(points)
        plausible = () if epoch is None else (epoch,)
        return KneeDecision(stop=stop, knee_epoch=epoch, knee_value=value, fit=None, plausible=plausible)

    def _has_come_to_rest(self, points: Sequence[Point]) -> bool:
        """Whether the last validations, those of the patience's epochs at least, have been exactly the same."""
        trained = [point for point in points if point[0] > 0]
        if not trained or trained[-1][1] is None:
            return False
        last, value = trained[-1]
        equal = list(takewhile(lambda point: point[1] == value, reversed(trained)))
        since = 0.0 if len(equal) == len(trained) else equal[-1][0]
        return len(equal) >= self.min_points and last - since >= self.patience

    def _fit(self, points: Sequence[Point], mode: Mode) -> CurveFit | None:
        if sum(epoch > 0 and value is not None for epoch, value in points) < self.min_points:
            return None
        regular = regular_points(points, at_least=num_parameters(self.curve))
        return fit_curve(
            [value for _, value in regular],
            self.curve,
            mode=mode,
            epochs=[epoch for epoch, _ in regular],
            min_delta=self.min_delta,
        )

    def _asks(self, fit: CurveFit | None, points: Sequence[Point]) -> bool:
        if fit is None or fit.knee_epoch is None:
            return False
        if not self.max_risk:
            return points[-1][0] >= fit.knee_epoch + self.patience
        values = [value for _, value in regular_points(points)]
        gain = self.min_gain * (max(values) - min(values))
        return CurvePosterior.of(fit, self.horizon).probability_of_gain(gain) < self.max_risk

    def _is_out_of_reach(self, fit: CurveFit, rival: float) -> bool:
        if len(fit.epochs) <= _RACE_POINTS:  # the value before training is one of them
            return False
        bound = CurvePosterior.of(fit, self.horizon).optimistic_value(_RACE_QUANTILE)
        return bound < rival if fit.mode == "max" else bound > rival


def _best_observed(points: Sequence[Point], mode: Mode) -> Point | tuple[None, None]:
    values = dict(points)
    return next(
        ((epoch, values[epoch]) for epoch in _by_value(points, mode) if values[epoch] is not None), (None, None)
    )


def _by_value(points: Sequence[Point], mode: Mode) -> tuple[float, ...]:
    """All epochs, those of the best values first, those without one last."""
    sign = -1.0 if mode == "max" else 1.0
    ranked = sorted(points, key=lambda point: math.inf if point[1] is None else sign * point[1])
    return tuple(epoch for epoch, _ in ranked)


def _plausible(fit: CurveFit) -> tuple[float, ...]:
    fitted = fit.predict(fit.epochs) * (1 if fit.mode == "max" else -1)
    below = fitted.max() - fitted
    near = [index for index in np.argsort(below, kind="stable") if below[index] <= _PLAUSIBLE * fit.rmse]
    epochs = [fit.epochs[index] for index in near]
    # With `min_delta` the knee need not be the best epoch.
    return tuple(dict.fromkeys([fit.epochs[fit.epochs.index(float(fit.knee_epoch or 0))], *epochs]))
