"""Optuna: a pruner that ends trials by their fitted curve.

Optuna's own pruners compare a trial with what others had reached at the same step. This one asks what the trial itself
will come to.
"""

import math
from functools import lru_cache
from typing import Final

from typing_extensions import override

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.knee import KneeRule, Point
from lightning_opplan.planning.posterior import CurvePosterior

try:
    from optuna.pruners import BasePruner
    from optuna.study import Study, StudyDirection
    from optuna.trial import FrozenTrial, TrialState
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("Optuna is not installed. Run `pip install 'lightning-opplan[optuna]'`.") from error

__all__ = ["KneePruner"]

_FIRST: Final = 14
_QUANTILE: Final = 3.09
"""A trial is out of reach of its rival after 14 reports at the earliest, and by the quantile .999, as in a race."""


class KneePruner(BasePruner):
    """Prune a trial once its fitted curve says that it will not be the best of the study.

    What a trial is worth is the fitted value of its knee, or the best reported one where there are too few for a fit.
    The rival is the best completed trial by it: fits are compared with fits, so that a lucky validation of the rival
    costs nobody a trial. A trial is pruned if

    - the optimistic bound (quantile .999) on what it reaches until the longest completed trial ended, if its curve
      rises no faster than it does now, is no better than the rival, after 14 reports or more; or
    - its own knee is `patience` steps behind it, and no better than the rival; or
    - it reports a value that is not finite, unless the rule's `check_finite` is off.

    A trial that is ahead of all completed ones is not pruned, wherever its knee is, as Optuna does not count the value
    of a pruned trial; let the loop end it by the same rule. Nothing is pruned before a trial has completed.

    The steps need not be epochs, but evenly spaced; patience and wait are counted in them. The rule holds at
    a constant learning rate: the last rise of a schedule that falls to zero is in no fitted curve.

    Args:
        rule: Patience, family of curves and the rest; `wait` above all, for trials that learn late.
        first_step: The step that a trial reports after its first epoch: 0 in a loop over ``range(epochs)``.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(direction="maximize", pruner=KneePruner(KneeRule(patience=5)))
    """

    def __init__(self, rule: KneeRule | None = None, *, first_step: int = 0) -> None:
        if isinstance(first_step, bool) or not isinstance(first_step, int):
            raise ValueError(f"`first_step` must be a whole number, got {first_step!r}.")
        self.rule = rule or KneeRule()
        self.first_step = first_step

    @override
    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        points = self._points(trial)
        if not points:
            return False
        if points[-1][1] is None:
            return self.rule.check_finite
        mode: Mode = "max" if study.direction == StudyDirection.MAXIMIZE else "min"
        completed = [self._points(each) for each in study.get_trials(False, (TrialState.COMPLETE,))]
        rivals = [worth for each in completed if (worth := _worth(self.rule, each, mode)) is not None]
        if not rivals:
            return False
        epoch = points[-1][0]
        if epoch < (self.rule.wait or 0) and not self.rule.has_learned(points, mode):
            return False
        rival = max(rivals) if mode == "max" else min(rivals)
        decision = self.rule.decide(points, mode)
        if decision.stop and not _is_better(decision.knee_value, rival, mode):
            return True
        if decision.fit is None or len(decision.fit.epochs) < _FIRST:
            return False
        ahead = max(each[-1][0] for each in completed if each) - epoch
        bound = CurvePosterior.of(decision.fit).concave_bound(ahead, _QUANTILE)
        return not _is_better(bound, rival, mode)

    def _points(self, trial: FrozenTrial) -> tuple[Point, ...]:
        points = tuple(
            (step - self.first_step + 1, value if math.isfinite(value) else None)
            for step, value in sorted(trial.intermediate_values.items())
        )
        if points and points[0][0] < 0:
            raise ValueError(
                f"`first_step` must be the step that a trial reports after its first epoch, got {self.first_step!r} "
                f"and a report of step {min(trial.intermediate_values)}."
            )
        return points


@lru_cache(maxsize=4096)  # completed trials no longer change, and are asked for at every report
def _worth(rule: KneeRule, points: tuple[Point, ...], mode: Mode) -> float | None:
    return rule.decide(points, mode).knee_value


def _is_better(value: float | None, rival: float, mode: Mode) -> bool:
    return value is not None and (value > rival if mode == "max" else value < rival)
