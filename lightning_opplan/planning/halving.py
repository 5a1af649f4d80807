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

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.outcome import EdgeOutcome, Work
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.space import Arms
from lightning_opplan.planning.standings import Standings, Unit, averaged_value

__all__ = ["Halving", "Rung"]

_EPOCHS_PER_ARM: Final = 8  # below it there are fewer arms


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


class Halving(Standings):
    """Where a budgeted search stands, and what it wants to know next; driven like a `Search`.

    Attributes:
        spared: Epochs that the arms left at the end were not trained for, as nothing would have been decided.

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
    """

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
        super().__init__(arms, unit=unit, mode=mode, outcomes=outcomes)
        self.budget, self.eta, self.moves = budget, eta, moves
        self.is_delivered, self.seed = is_delivered, seed
        self._plan()

    def ask(self, running: Collection[Edge] = ()) -> Work | None:
        """Return the next arm to train, and up to which epoch; see `Search.ask`."""
        return next((work for work in self._wanted if work.edge not in running), None)

    def tell(self, outcome: EdgeOutcome) -> None:
        """Take what became of an arm: it was paused, or has ended; see `Search.tell`."""
        self._note(outcome)
        self._plan()

    @property
    def is_complete(self) -> bool:
        """Whether the budget has been spent as well as can be."""
        return not self._wanted

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The steps that are decided; the last one may still be under way."""
        return tuple(self._rungs)

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

    def way(self, state: str) -> tuple[Edge, ...]:
        """Return the edges from the start to a state."""
        edge = self.winners[state]
        parent = self.parent(edge)
        return (edge,) if parent is None else (parent, edge)

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

    def ranked(self) -> tuple[Edge, ...]:
        """Return the arms of the last rung that has ended, the best first; before, those that have a value."""
        for rung in reversed(self._rungs):
            if rung.reason is None and not self._missing(rung):
                alive = [edge for edge in rung.edges if self._known[edge].value is not None]
                if alive:  # otherwise all have diverged since
                    return tuple(self._ranking(dict.fromkeys(alive, rung.epochs)))
        return tuple(
            self._ranking({edge: self._reached(edge) for edge in self.winners.values() if edge.parent == START})
        )

    # What follows from the outcomes

    def _plan(self) -> None:
        """Go through the rungs as far as the outcomes reach, up to the work that is wanted next."""
        self._rungs: list[Rung] = []
        self._wanted: list[Work] = []
        self.spared = 0
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
        order, is_blind = list(edges), False
        chosen = order
        if number > 0:
            at = {edge: rung.epochs for rung in self._rungs for edge in rung.edges}
            order = self._ranking({edge: at[edge] for edge in edges})
            if not order:
                return False
            is_blind = all(self.is_blind(edge, at[edge]) for edge in order)
            kept = set(order if is_blind else self._kept(order, counts[number]))
            chosen = [edge for edge in edges if edge in kept]
            if self.is_delivered and self._is_decided(chosen):
                self.spared = max(self._affordable(chosen, before) - before, 0)
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
        if number == 0 and self.is_delivered and self._is_decided(chosen):
            # They show whether it learns; the rest is for the delivery.
            self.spared, epochs = max(epochs - _EPOCHS_PER_ARM, 0), min(epochs, _EPOCHS_PER_ARM)
        if number < len(counts) - 1:
            planned = self._epochs(number, counts, chosen)
            if is_blind:  # nothing says which are the better ones, so all of them share what the better ones would get
                planned = before + max((planned - before) * counts[number] // len(chosen), 1)
            epochs = min(epochs, planned)
        elif number > 0 and epochs > before:
            chosen += self._forks(order[0], before)
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
        price, start = self._price(first), self._start(first) if first in self._known else 0.0
        affordable = int(self.budget / (_EPOCHS_PER_ARM * price + start)) if price else len(arms)
        own = sum(arm.is_own for arm in self.arms.arms)
        known = sum(edge in self._known for edge in arms)
        arms = arms[: max(affordable, min(own + 1, len(arms)), known, 3)]
        while len(arms) > max(known, 1) and self._affordable(arms, 0) < 1:
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
        starts = {edge: self._start(edge) for edge in self._known}
        # One more start for each that has yet to go on; in hours each has been trained for an epoch already.
        waiting = sum(edge not in self._known or self._reached(edge) <= max(before, 1) for edge in chosen)
        left -= sum(starts.get(edge, 0.0) for edge in chosen) + waiting * min(starts.values(), default=0.0)
        prices = {edge: self._price(edge) or 1.0 for edge in chosen}
        spent = {edge: self._cost(edge) - starts[edge] if edge in self._known else 0.0 for edge in chosen}
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

    def _is_decided(self, edges: Sequence[Edge]) -> bool:
        """Whether there is one arm per branch."""
        branches = [self._arm[edge].branch for edge in edges]
        return len(set(branches)) == len(branches)

    def _num_protected(self) -> int:
        """The most arms that are kept whatever their value."""
        arms = self.arms.arms
        branches = {arm.branch for arm in arms}
        places = {(name, arm.places[name]) for arm in arms for name in self.arms.protected}
        return sum(arm.is_own for arm in arms) + len(branches) + len(places)

    def _kept(self, order: Sequence[Edge], count: int) -> Collection[Edge]:
        """The arms that go on: those that are protected, and the best of the others."""
        kept = dict.fromkeys(edge for edge in order if self._arm[edge].is_own)
        for name in (None, *self.arms.protected):
            best: dict[str, Edge] = {}
            for edge in order:
                arm = self._arm[edge]
                best.setdefault(arm.branch if name is None else arm.places[name], edge)
            kept |= dict.fromkeys(best.values())
        for edge in order:
            if len(kept) >= count:
                break
            kept[edge] = None
        return kept

    def _forks(self, best: Edge, since: int) -> list[Edge]:
        """The moves: the best arm under settings one step away that no arm has.

        Once it has gone on beyond the epoch, with a smaller budget, say, there is nothing left to fork.
        """
        forks = [edge for edge in self._arm if edge.parent == best.child]
        picked = np.random.default_rng((self.seed, 1)).permutation(len(forks))[: self.moves]
        is_there = self._reached(best) <= since
        return [forks[index] for index in sorted(picked) if is_there or forks[index] in self._known]

    def _missing(self, rung: Rung) -> list[Work]:
        """What a rung still wants. An arm waits for its forks, as its weights move on."""
        works: list[Work] = []
        awaited = {edge.parent for edge in rung.edges if edge not in self._known}
        for edge in rung.edges:
            since = int(self._since(edge, rung.since))
            if edge.child not in awaited and self._is_due(edge, rung.epochs, since):
                works.append(Work(edge=edge, until=rung.epochs - since, since=since or None))
        return works


def _whole(epochs: float) -> float:
    return int(epochs) if float(epochs).is_integer() else epochs
