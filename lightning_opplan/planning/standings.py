"""What is known of the arms of a budgeted search: what they are worth, what they cost, and which is the better one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from lightning_opplan.messages import suggestion
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.knee import Point
from lightning_opplan.planning.outcome import EdgeOutcome, Outcomes
from lightning_opplan.planning.space import Arm, Arms

__all__ = ["NUM_AVERAGED", "Standings", "Unit", "averaged_value", "scatter", "standard_error"]

Unit = Literal["epochs", "gpu_hours", "clip_frames"]
"""What a budget is counted in."""

NUM_AVERAGED: Final = 3
"""Validations whose mean is an arm's value."""

_SLACK: Final = 0.05  # prices in hours change from piece to piece; what is nearly trained is trained
_BLIND: Final = 1.0  # standard errors above the constant prediction, up to which nothing has been learned


def averaged_value(points: Sequence[Point], until: float = math.inf) -> float | None:
    """Return an arm's value: the mean of the last three validations up to an epoch, or of as many as there are.

    ``None`` without a validation after training began, and once one of the three was not finite.
    """
    values = [value for epoch, value in points if 0 < epoch <= until + 1e-9][-NUM_AVERAGED:]
    if not values or any(value is None for value in values):
        return None
    return sum(value for value in values if value is not None) / len(values)


def standard_error(value: float, points: Sequence[Point], num_validation: int | None) -> float:
    """Return the standard error of an arm's value.

    Args:
        value: The value.
        points: The curve, whose scatter is a part of it.
        num_validation: Samples that a metric between 0 and 1 is the mean of: no such mean has a larger error than a
            share has. ``None`` for any other metric, of which the scatter is all that is known.
    """
    if not num_validation:
        return scatter(points)
    share = min(max(value, 0.0), 1.0)
    return max(scatter(points), math.sqrt(share * (1.0 - share) / num_validation))


def scatter(points: Sequence[Point]) -> float:
    """Return the standard error of a mean of three validations, by the curve's second differences."""
    values = np.array([value for epoch, value in points if epoch > 0 and value is not None])
    if len(values) <= NUM_AVERAGED:
        return 0.0
    return 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6 * NUM_AVERAGED)


class Standings:
    """What became of arms so far.

    Args:
        arms: The arms.
        unit: What their cost is counted in.
        mode: Whether a higher or a lower value is better.
        outcomes: What is known.

    Attributes:
        graph: A state for every arm, and for every fork.
        edges: All edges that may run.
    """

    def __init__(self, arms: Arms, *, unit: Unit, mode: Mode, outcomes: Iterable[EdgeOutcome]) -> None:
        self.arms, self.unit, self.mode, self.graph = arms, unit, mode, arms.graph
        self.edges = self.graph.edges
        self._sign = 1.0 if mode == "max" else -1.0
        self._arm = {Edge(START, arm.name): arm for arm in arms.arms}
        self._arm |= {Edge(parent, fork.name): fork for parent, fork in arms.forks}
        self._known: dict[Edge, EdgeOutcome] = {}
        self._values: dict[tuple[Edge, float], float | None] = {}
        for outcome in outcomes:
            self._note(outcome)

    @property
    def outcomes(self) -> Outcomes:
        """The arms that cannot be gone on with: they diverged, or their Trainer ended them."""
        return MappingProxyType({edge: each for edge, each in self._known.items() if not each.is_paused})

    @property
    def paused(self) -> Outcomes:
        """The arms that can be gone on with."""
        return MappingProxyType({edge: each for edge, each in self._known.items() if each.is_paused})

    @property
    def known(self) -> tuple[EdgeOutcome, ...]:
        """All that the search was told, the last of each arm."""
        return tuple(self._known.values())

    @property
    def spent(self) -> float:
        """What all arms have taken, in the unit of the budget."""
        return sum(self._cost(edge) for edge in self._known)

    def outcome(self, edge: Edge) -> EdgeOutcome | None:
        """Return what is known of an edge."""
        return self._known.get(edge)

    def parent(self, edge: Edge) -> Edge | None:
        """Return the arm that an edge forks; ``None`` for an arm itself."""
        return None if edge.parent == START else Edge(START, edge.parent)

    def arm(self, edge: Edge) -> Arm:
        """Return the arm of an edge."""
        return self._arm[edge]

    def value(self, edge: Edge, until: float = math.inf) -> float | None:
        """Return an arm's value at an epoch along its way; ``None`` if it has none, or has diverged."""
        outcome = self._known.get(edge)
        if outcome is None or (outcome.value is None and until >= self._reached(edge)):
            return None
        key = edge, min(until, self._reached(edge))
        if key not in self._values:
            self._values[key] = averaged_value(outcome.curve, until - (outcome.since or 0))
        return self._values[key]

    def standard_error(self, edge: Edge, until: float = math.inf) -> float:
        """Return the standard error of an arm's value at an epoch along its way."""
        outcome = self._known[edge]
        points = [point for point in outcome.curve if point[0] <= until - (outcome.since or 0)]
        return standard_error(self.value(edge, until) or 0.0, points, self._num_validation(edge))

    def probability_of_better(self, rival: Edge, best: Edge) -> float:
        """Return the probability that a rival is better than the best, both values being normal and independent."""
        value, other = self.value(best) or 0.0, self.value(rival) or 0.0
        spread = math.hypot(self.standard_error(best), self.standard_error(rival))
        ahead = self._sign * (value - other)
        return 0.5 * math.erfc(ahead / spread / math.sqrt(2.0)) if spread else 0.5 * (ahead == 0) + (ahead < 0)

    def is_equal(self, one: Edge, other: Edge) -> bool:
        """Whether two arms differ by no more than a standard error."""
        return abs((self.value(one) or 0.0) - (self.value(other) or 0.0)) <= self.standard_error(one)

    def is_blind(self, edge: Edge, until: float = math.inf) -> bool:
        """Whether an arm is still worth what always predicting the frequencies of the classes is worth."""
        chance = self.chance
        value = self.value(edge, until)
        if chance is None or value is None:
            return False
        error = standard_error(chance, (), self._num_validation(edge))
        return self._sign * (value - chance) <= _BLIND * error

    @property
    def chance(self) -> float | None:
        """The value of predicting the frequencies of the classes, whatever the sample, where it was measured."""
        return next((each.unlearned for each in self._known.values() if each.unlearned is not None), None)

    def _note(self, outcome: EdgeOutcome) -> None:
        if outcome.edge not in self._arm:
            raise ValueError(
                f"`outcome` must be of an edge of the search, got {str(outcome.edge)!r}. "
                + suggestion(str(outcome.edge), map(str, self.edges), label="Edges")
            )
        self._known[outcome.edge] = outcome
        self._values = {key: value for key, value in self._values.items() if key[0] != outcome.edge}

    def _ranking(self, at: Mapping[Edge, float]) -> list[Edge]:
        """Arms that have not diverged, the best first; those that are as good as equal by what they are.

        Nothing is known of blind arms: the configuration's own comes first, then they stay as they were drawn.

        Args:
            at: The epoch of every arm at which it is looked at. What came after must not matter, or the choice would
                depend on which arm is the first to go on.
        """
        alive = {edge: until for edge, until in at.items() if self.value(edge, until) is not None}
        blind = [edge for edge, until in alive.items() if self.is_blind(edge, until)]
        worth = {edge: self._worth(edge, alive) for edge in alive if edge not in blind}
        order: list[Edge] = []
        while worth:
            best = max(worth, key=lambda edge: worth[edge])
            error = self.standard_error(best, at[best])
            equal = [edge for edge in worth if worth[best] - worth[edge] <= error]
            order.append(min(equal, key=lambda edge: self._tie(edge, worth[edge])))
            del worth[order[-1]]
        return order + sorted(blind, key=lambda edge: not self._arm[edge].is_own)

    def _tie(self, edge: Edge, worth: float) -> tuple[object, ...]:
        """What decides among equals: how training ends if nobody plans, then the lower cost, then the value."""
        arm = self._arm[edge]
        cost = round(10 * math.log(self._price(edge)))  # costs that differ by less than a tenth are the same
        return not arm.is_own, not arm.is_last, cost, -worth

    def _worth(self, edge: Edge, at: Mapping[Edge, float]) -> float:
        """An arm's value, the higher the better; that of an early position on an axis at equal cost, too.

        With shorter clips, say, a network looks better after few epochs than it is. So it has to be ahead both after
        equal epochs and at equal cost.
        """
        arm, value = self._arm[edge], self.value(edge, at[edge])
        assert value is not None
        last = [
            self._price(other) for other in at if self._arm[other].is_last and arm.branch == self._arm[other].branch
        ]
        if arm.is_last or not last:
            return self._sign * value
        at_equal_cost = self.value(edge, at[edge] * min(1.0, sum(last) / len(last) / self._price(edge)))
        return self._sign * value if at_equal_cost is None else min(self._sign * value, self._sign * at_equal_cost)

    def _is_due(self, edge: Edge, epochs: float, since: float = 0) -> bool:
        outcome = self._known.get(edge)
        if outcome is None:
            return epochs > since
        slack = _SLACK * epochs if self.unit == "gpu_hours" else 0.0
        return outcome.is_paused and outcome.value is not None and self._reached(edge) < epochs - slack

    def _since(self, edge: Edge, before: float) -> float:
        """The epoch at which a fork left its arm, or would leave it."""
        outcome = self._known.get(edge)
        if edge.parent == START:
            return 0.0
        return before if outcome is None else float(outcome.since or 0.0)

    def _num_validation(self, edge: Edge) -> int | None:
        """Samples of the validation set, if the metric is a mean of values between 0 and 1."""
        outcome = self._known[edge]
        values = [value for _, value in outcome.curve if value is not None]
        is_share = self.mode == "max" and all(0.0 <= value <= 1.0 for value in values)
        return outcome.num_validation if is_share else None

    def _reached(self, edge: Edge) -> float:
        outcome = self._known[edge]
        return outcome.epochs_run + (outcome.since or 0.0)

    def _cost(self, edge: Edge) -> float:
        outcome = self._known[edge]
        if self.unit == "epochs":
            return outcome.epochs_run
        if self.unit == "gpu_hours":
            return outcome.device_seconds / 3600
        return float(outcome.clip_frames or outcome.num_samples or 1)

    def _price(self, edge: Edge) -> float:
        """What an epoch of an arm costs, its start left out; that of a fork before it is trained like its arm's."""
        if self.unit == "epochs":
            return 1.0
        outcome = self._known.get(edge)
        if outcome is None or not outcome.epochs_run:
            parent = self.parent(edge)
            return self._mean_price(self._known) if parent is None else self._price(parent)
        return (self._cost(edge) - self._start(edge)) / outcome.epochs_run

    def _start(self, edge: Edge) -> float:
        """What of an arm's cost was spent before training began, each time that it did."""
        outcome = self._known[edge]
        return outcome.start_seconds * outcome.devices / 3600 if self.unit == "gpu_hours" else 0.0

    def _mean_price(self, edges: Iterable[Edge]) -> float:
        if self.unit == "epochs":
            return 1.0
        prices = [self._price(edge) for edge in edges if edge in self._known and self._known[edge].epochs_run]
        return sum(prices) / len(prices) if prices else 0.0
