"""The budgeted search: trainings at a constant rate, paused, compared and gone on with, the better ones for longer.

A training at a constant learning rate has no horizon. It can be paused after any epoch, and the moving average of its
weights says what it would be worth with an annealed end. So all arms are trained for some epochs, the best third of
them for three times as many, and so on, until the budget is spent; none is ever begun anew.

Everything follows from the curves of the arms and the budget: a larger budget makes the same decisions later, on the
same curves, and any number of workers makes the same ones.

References:
    Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, for paused and promoted trainings.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

import numpy as np

from lightning_opplan.messages import checked_choice, suggestion
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.knee import Point
from lightning_opplan.planning.outcome import EdgeOutcome, Outcomes, Work
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.space import Arm, Arms

__all__ = ["NUM_AVERAGED", "Halving", "Rung", "Unit", "averaged_value"]

Unit = Literal["epochs", "gpu_hours", "clip_frames"]
"""What a budget is counted in."""

NUM_AVERAGED: Final = 3
"""Validations whose mean is an arm's value."""

_EPOCHS_PER_ARM: Final = 8  # below it there are fewer arms
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
    values = np.array([value for epoch, value in points if epoch > 0 and value is not None])
    scatter = 0.0
    if len(values) > NUM_AVERAGED:
        scatter = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6 * NUM_AVERAGED)
    of_samples = 0.0
    if num_validation:
        of_samples = math.sqrt(value * (1.0 - value) / num_validation)
    return max(scatter, of_samples)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A step of the search: some arms are trained up to the same epoch.

    Attributes:
        edges: The arms, and forks of arms.
        epochs: The epoch, counted along the whole way of each.
        since: The epoch of the rung before, at which forks leave their arm.
        reason: Why it was left out, if it was.
    """

    edges: tuple[Edge, ...]
    epochs: int
    since: int = 0
    reason: str | None = None


class Halving:
    """Where a budgeted search stands, and what it wants to know next; driven like a `Search`.

    Args:
        arms: The settings to try.
        budget: What may be spent.
        unit: What it is counted in.
        mode: Whether a higher or a lower value is better.
        eta: Of so many arms one goes on, for so many times as long.
        moves: How often the best arm is forked, in the last rung, into a setting one step away.
        is_delivered: Whether the winner is to be trained anew with what is left; then nothing is spent on a rung that
            can decide nothing.
        seed: Seed of what is random.
        outcomes: What is known already.

    Attributes:
        graph: A state for every arm, and for every fork.
        edges: All edges that may run.
    """

    beam: Final = 1
    racing: Final = False

    def __init__(
        self,
        arms: Arms,
        *,
        budget: float,
        unit: Unit = "epochs",
        mode: Mode = "max",
        eta: int = 3,
        moves: int = 0,
        is_delivered: bool = True,
        seed: int = 0,
        outcomes: Iterable[EdgeOutcome] = (),
    ) -> None:
        checked_choice("mode", mode, get_args(Mode))
        checked_choice("unit", unit, get_args(Unit))
        self.arms, self.budget, self.unit, self.mode, self.eta, self.moves = arms, budget, unit, mode, eta, moves
        self.is_delivered, self.seed, self.graph = is_delivered, seed, arms.graph
        self.edges = self.graph.edges
        self._sign = 1.0 if mode == "max" else -1.0
        self._arm = {Edge(START, arm.name): arm for arm in arms.arms}
        self._arm |= {Edge(parent, fork.name): fork for parent, fork in arms.forks}
        self._known: dict[Edge, EdgeOutcome] = {}
        self._values: dict[tuple[Edge, float], float | None] = {}
        for outcome in outcomes:
            self._note(outcome)
        self._plan()

    def ask(self, running: Collection[Edge] = ()) -> Work | None:
        """Return the next arm to train, and up to which epoch; see `Search.ask`."""
        return next((work for work in self._wanted if work.edge not in running), None)

    def tell(self, outcome: EdgeOutcome) -> None:
        """Take what became of an arm: it was paused, or has ended; see `Search.tell`."""
        self._note(outcome)
        self._plan()

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
    def is_complete(self) -> bool:
        """Whether the budget has been spent as well as can be."""
        return not self._wanted

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The steps that are decided; the last one may still be under way."""
        return tuple(self._rungs)

    @property
    def spent(self) -> float:
        """What all arms have taken, in the unit of the budget."""
        return sum(self._cost(edge) for edge in self._known)

    @property
    def winners(self) -> Mapping[str, Edge]:
        """The edge into every state with a value."""
        return {edge.child: edge for edge, each in self._known.items() if each.value is not None}

    leaders = winners

    @property
    def best_so_far(self) -> str | None:
        """The best arm by the last rung that has ended, or by what there is of the first one."""
        order = self.ranked()
        return order[0].child if order else None

    def outcome(self, edge: Edge) -> EdgeOutcome | None:
        """Return what is known of an edge."""
        return self._known.get(edge)

    def parent(self, edge: Edge) -> Edge | None:
        """Return the arm that an edge forks; ``None`` for an arm itself."""
        return None if edge.parent == START else Edge(START, edge.parent)

    def way(self, state: str) -> tuple[Edge, ...]:
        """Return the edges from the start to a state."""
        edge = self.winners[state]
        parent = self.parent(edge)
        return (edge,) if parent is None else (parent, edge)

    def rival(self, edge: Edge) -> None:  # noqa: ARG002 - what a `Search` has
        """Return nothing: arms do not race."""
        return

    def path(self, state: str | None = None, *, monitor: str | None = None) -> OptimizationPath | None:
        """Return the training of the best arm, or of the one named, as a path; see `Search.path`."""
        state = state or self.best_so_far
        if state is None:
            return None
        steps = []
        for edge in self.way(state):
            outcome = self._known[edge]
            is_last = edge.child == state
            epochs = outcome.epochs_run if is_last else float(self._known[self.way(state)[-1]].since or 0)
            value = outcome.value if is_last else averaged_value(outcome.curve, epochs)
            steps.append(
                PathStep(state=edge.child, epochs=_whole(epochs), setting=self.graph.settings[edge.child], value=value)
            )
        return OptimizationPath(
            steps=tuple(steps), monitor=monitor, mode=self.mode, is_complete=self.is_complete, averaging=True
        )

    def paths(self, *, monitor: str | None = None) -> Mapping[str, OptimizationPath]:
        """Return the best path of every branch."""
        found: dict[str, OptimizationPath] = {}
        for edge in self.ranked():
            path = self.path(edge.child, monitor=monitor)
            if path is not None:
                found.setdefault(self._arm[edge].branch, path)
        return found

    def arm(self, edge: Edge) -> Arm:
        """Return the arm of an edge."""
        return self._arm[edge]

    def ranked(self) -> tuple[Edge, ...]:
        """Return the arms of the last rung that has ended, the best first; before, those that have a value."""
        done = [rung for rung in self._rungs if rung.reason is None and not self._missing(rung)]
        if done:
            return tuple(self._ranking(dict.fromkeys(done[-1].edges, done[-1].epochs)))
        return tuple(self._ranking({edge: self._reached(edge) for edge in self._known if edge.parent == START}))

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

    def scatter(self, edge: Edge) -> float:
        """Return the part of the standard error that the scatter of the curve shows."""
        return standard_error(0.0, self._known[edge].curve, None)

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
        return next((each.chance for each in self._known.values() if each.chance is not None), None)

    # What follows from the outcomes

    def _num_validation(self, edge: Edge) -> int | None:
        """Samples of the validation set, if the metric is a mean of values between 0 and 1."""
        outcome = self._known[edge]
        values = [value for _, value in outcome.curve if value is not None]
        is_share = self.mode == "max" and all(0.0 <= value <= 1.0 for value in values)
        return outcome.num_validation if is_share else None

    def _note(self, outcome: EdgeOutcome) -> None:
        if outcome.edge not in self._arm:
            raise ValueError(
                f"`outcome` must be of an edge of the search, got {str(outcome.edge)!r}. "
                + suggestion(str(outcome.edge), map(str, self.edges), label="Edges")
            )
        self._known[outcome.edge] = outcome
        self._values = {key: value for key, value in self._values.items() if key[0] != outcome.edge}

    def _plan(self) -> None:
        """Go through the rungs as far as the outcomes reach, up to the work that is wanted next."""
        self._rungs: list[Rung] = []
        self._wanted: list[Work] = []
        first = next(iter(self._arm))
        if self.unit != "epochs" and self._is_due(first, 1):
            self._wanted = [Work(edge=first, until=1)]  # what an epoch costs says how many arms there may be
            return
        edges = self._first_edges(first)
        if self.unit != "epochs":
            self._wanted = [Work(edge=edge, until=1) for edge in edges if self._is_due(edge, 1)]
        counts = self._counts(len(edges))
        for number in range(len(counts)):
            if self._wanted:
                return
            if not self._climb(number, counts, edges):
                return

    def _climb(self, number: int, counts: Sequence[int], edges: Sequence[Edge]) -> bool:
        """Add a rung, and what it wants; returns whether there may be a further one."""
        before = self._rungs[-1].epochs if self._rungs else 0
        chosen, at = list(edges), {}
        if number > 0:
            at = {edge: rung.epochs for rung in self._rungs for edge in rung.edges}
            chosen = self._chosen({edge: at[edge] for edge in edges}, counts[number])
            if not chosen:
                return False
            branches = [self._arm[edge].branch for edge in chosen]
            if self.is_delivered and len(set(branches)) == len(branches):
                self._rungs.append(
                    Rung(
                        edges=tuple(chosen),
                        epochs=before,
                        since=before,
                        reason="one arm was left per branch: nothing to decide",
                    )
                )
                return False
        epochs = self._affordable(chosen, before)
        if number < len(counts) - 1:
            epochs = min(epochs, self._epochs(number, counts, chosen))
        elif number > 0 and epochs > before:
            chosen += self._forks({edge: at[edge] for edge in chosen})
            epochs = self._affordable(chosen, before)
        if epochs <= before:
            return False
        rung = Rung(edges=tuple(chosen), epochs=epochs, since=before)
        self._rungs.append(rung)
        self._wanted = self._missing(rung)
        return True

    def _first_edges(self, first: Edge) -> list[Edge]:
        """The arms of the first rung: all, or as many as the budget can give a few epochs."""
        arms = [edge for edge in self._arm if edge.parent == START]
        price = self._price(first)
        affordable = int(self.budget / (_EPOCHS_PER_ARM * price)) if price else len(arms)
        own = sum(arm.is_own for arm in self.arms.arms)
        arms = arms[: max(affordable, min(own + 1, len(arms)), 3)]
        while len(arms) > 1 and self._affordable(arms, 0) < 1:
            arms.pop()
        return arms

    def _counts(self, number: int) -> list[int]:
        """Arms of every rung: 18, 6, 2."""
        counts = [number]
        while counts[-1] > 1 and counts[-1] // self.eta >= 1:
            counts.append(counts[-1] // self.eta)
        return counts

    def _epochs(self, number: int, counts: Sequence[int], chosen: Sequence[Edge]) -> int:
        """The epoch of a rung before the last: so many that each further one fits in the budget."""
        price = self._mean_price([edge for edge in self._known if edge.parent == START] or chosen)
        trained = 0.0
        for rung, count in enumerate(counts):
            new = self.eta**rung - (self.eta ** (rung - 1) if rung else 0)
            kept = count if rung == 0 else min(max(count, self._num_protected()), counts[0])
            forks = self.moves if rung == len(counts) - 1 and rung else 0
            trained += (kept + forks) * new
        scale: int = self.eta**number
        return max(round(self.budget / price / trained * scale), 1)

    def _affordable(self, chosen: Sequence[Edge], before: int) -> int:
        """The epoch up to which some arms can be trained with what the others have left of the budget.

        Where some are beyond it, from a search with another budget, there is less for the rest. It does not depend on
        how far the arms have come on the way to it.
        """
        left = self.budget - sum(self._cost(edge) for edge in self._known if edge not in chosen)
        prices = {edge: self._price(edge) or 1.0 for edge in chosen}
        spent = {edge: self._cost(edge) if edge in self._known else 0.0 for edge in chosen}
        since = {edge: self._since(edge, before) for edge in chosen}
        behind = list(chosen)
        while behind:
            total = left - sum(spent[edge] for edge in chosen if edge not in behind)
            given = sum(prices[edge] * since[edge] for edge in behind)
            epochs = (total + given) / sum(prices[edge] for edge in behind) + 1e-9
            beyond = [edge for edge in behind if spent[edge] > prices[edge] * (epochs - since[edge]) + 1e-6]
            if not beyond:
                return int(epochs)
            behind = [edge for edge in behind if edge not in beyond]
        return 0

    def _num_protected(self) -> int:
        """The most arms that are kept whatever their value."""
        arms = self.arms.arms
        branches = {arm.branch for arm in arms}
        places = {(name, arm.places[name]) for arm in arms for name in self.arms.protected}
        return sum(arm.is_own for arm in arms) + len(branches) + len(places)

    def _chosen(self, at: Mapping[Edge, float], count: int) -> list[Edge]:
        """The arms that go on: those that are protected, and the best of the others, in their first order."""
        order = self._ranking(at)
        kept = dict.fromkeys(edge for edge in order if self._arm[edge].is_own)
        for name in (None, *self.arms.protected):
            best: dict[str, Edge] = {}
            for edge in order:
                arm = self._arm[edge]
                # Of arms that nothing is known of, one beside the own one: there has to be something to decide.
                if not (arm.is_own and self.is_blind(edge, at[edge])):
                    best.setdefault(arm.branch if name is None else arm.places[name], edge)
            kept |= dict.fromkeys(best.values())
        for edge in order:
            if len(kept) >= count:
                break
            kept[edge] = None
        return [edge for edge in at if edge in kept]

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

    def _forks(self, at: Mapping[Edge, float]) -> list[Edge]:
        """The moves: the best arm under settings one step away that no arm has."""
        order = self._ranking(at)
        if not self.moves or not order:
            return []
        forks = [edge for edge in self._arm if edge.parent == order[0].child]
        picked = np.random.default_rng((self.seed, 1)).permutation(len(forks))[: self.moves]
        return [forks[index] for index in sorted(picked)]

    def _missing(self, rung: Rung) -> list[Work]:
        """What a rung still wants. A fork before the arm that it forks, whose weights move on."""
        works = []
        for edge in sorted(rung.edges, key=lambda edge: edge.parent == START):
            since = int(self._since(edge, rung.since))
            if self._is_due(edge, rung.epochs, since):
                works.append(Work(edge=edge, until=rung.epochs - since, since=since or None))
        return works

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
        """What an epoch of an arm costs; that of a fork before it is trained like its arm's."""
        if self.unit == "epochs":
            return 1.0
        outcome = self._known.get(edge)
        if outcome is None or not outcome.epochs_run:
            parent = self.parent(edge)
            return self._mean_price(self._known) if parent is None else self._price(parent)
        return self._cost(edge) / outcome.epochs_run

    def _mean_price(self, edges: Iterable[Edge]) -> float:
        if self.unit == "epochs":
            return 1.0
        prices = [self._price(edge) for edge in edges if edge in self._known and self._known[edge].epochs_run]
        return sum(prices) / len(prices) if prices else 0.0


def _whole(epochs: float) -> float:
    return int(epochs) if float(epochs).is_integer() else epochs
