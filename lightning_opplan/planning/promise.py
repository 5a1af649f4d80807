"""What a search promises, and what is to be expected: the best of several noisy values is too high on average."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.standings import scatter

__all__ = ["Promise", "promise_of", "winners_curse"]

_SHARED = 0.5
"""Share of the validation set's error that all trainings of a search have in common: they are validated on the same
samples. It was 0.4 to 0.7 on five small tasks (docs/measurements.md)."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """The value of a search's result.

    Attributes:
        value: As it was chosen.
        expected: With what being the best of several adds on average taken off.
        error: Standard error of the value.
    """

    value: float
    expected: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} (expected on new data: {self.expected:.4f} ± {self.error:.4f})"


def promise_of(search: Search | Halving) -> Promise | None:
    """Return what the result of a search is worth; ``None`` as long as there is none.

    Rivals of a path are all edges into the states that it goes through, and into the other final states; rivals of an
    arm are all others.
    """
    state = search.best_so_far
    if state is None:
        return None
    chosen = search.outcome(search.leaders[state])
    assert chosen is not None
    assert chosen.value is not None
    if isinstance(search, Halving):
        rivals: Sequence[EdgeOutcome] = search.known
    else:
        states = {edge.child for edge in search.way(state)} | set(search.graph.finals.values())
        rivals = [outcome for edge, outcome in search.outcomes.items() if edge.child in states]
    rivals = [outcome for outcome in rivals if outcome.value is not None]
    is_share = search.mode == "max" and all(_is_share(outcome) for outcome in rivals)
    own = [_error(search, outcome, 1.0 - _SHARED if is_share else None) for outcome in rivals]
    whole = _error(search, chosen, 1.0 if is_share else None)
    sign = 1.0 if search.mode == "max" else -1.0
    curse = winners_curse([sign * (outcome.value or 0.0) for outcome in rivals], own)
    return Promise(value=chosen.value, expected=chosen.value - sign * curse, error=whole)


def winners_curse(values: Sequence[float], errors: Sequence[float]) -> float:
    """Return by how much the best of some normal values is better than its mean, on average.

    Args:
        values: Their means, the higher the better.
        errors: Their standard deviations; they are independent.

    References:
        Smith and Winkler, "The Optimizer's Curse: Skepticism and Postdecision Surprise in Decision Analysis",
        Management Science 52 (3), 2006.

    Example:
        >>> round(winners_curse([0.0, 0.0], [1.0, 1.0]), 4)  # 1/√π
        0.5642
    """
    from scipy.special import ndtr  # here, as it takes half a second to import

    means, spread = np.asarray(values, float), np.maximum(np.asarray(errors, float), 1e-12)
    steps = np.linspace(-6.0, 6.0, 241)
    weights = steps * np.exp(-steps * steps / 2.0) / math.sqrt(2.0 * math.pi) * (steps[1] - steps[0])
    drawn = means[:, None] + spread[:, None] * steps
    below = ndtr((drawn[:, None, :] - means[None, :, None]) / spread[None, :, None])
    each = np.arange(len(means))
    below[each, each] = 1.0
    return float((spread[:, None] * weights * below.prod(axis=1)).sum())


def _is_share(outcome: EdgeOutcome) -> bool:
    """Whether a metric is a mean of values between 0 and 1, over a known number of samples."""
    values = [value for _, value in outcome.curve if value is not None]
    return bool(outcome.num_validation) and all(0.0 <= value <= 1.0 for value in values)


def _error(search: Search | Halving, outcome: EdgeOutcome, share: float | None) -> float:
    """Standard error of a value: of the fit, or the curve's scatter, and a share of the validation set's."""
    fitted = scatter(outcome.curve) if isinstance(search, Halving) else outcome.standard_error or 0.0
    if share is None or not outcome.num_validation:
        return fitted
    number = outcome.num_validation
    value = min(max(outcome.value or 0.0, 0.5 / number), 1.0 - 0.5 / number)
    return math.hypot(fitted, math.sqrt(share * value * (1.0 - value) / number))
