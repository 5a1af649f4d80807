"""What is done with what a search has found: trainings anew on all data, and the control of the same cost beside it.

Both are chains of stages with given epochs; see `chains`.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.graph import Axis, Edge, Setting, TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.path import OptimizationPath, plain_setting, stages_of
from lightning_opplan.planning.schedule import ANNEAL, CONSTANT, Anneal, FixedStage
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.space import is_rate

__all__ = [
    "MAX_MEMBERS",
    "SHARE_OF_SEARCH",
    "Member",
    "control_members",
    "control_settings",
    "delivered_members",
    "doubling",
    "members_from",
]

MAX_MEMBERS: Final = 8
"""Trainings of one path, at most: of more, each would rather be longer."""

SHARE_OF_SEARCH: Final = 0.4
"""What the search is of a whole budget, where nothing else is said; between a quarter and 60% were alike."""

_MIN_MEMBERS: Final = 2

Price = Callable[[Setting], float]
"""What an epoch on all data costs under a setting, in the unit of the budget."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A training whose scores are to be averaged with those of others.

    Attributes:
        name: Its name.
        branch: Its branch, empty if there are none.
        group: Members of a group are averaged.
        stages: Settings and epochs, in order.
        value: What its path was worth in the search.
    """

    name: str
    branch: str
    group: str = ""
    stages: tuple[tuple[Setting, FixedStage], ...]
    value: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        stages = [
            {
                "setting": dict(setting), "epochs": stage.epochs, "offset": stage.offset, "total": stage.total,
                "anneal": stage.anneal.to_dict(),
            }
            for setting, stage in self.stages
        ]  # fmt: skip
        return {**vars(self), "stages": stages}


def members_from(content: Sequence[Mapping[str, Any]]) -> tuple[Member, ...]:
    """Build members from what `Member.to_dict` returns."""
    members = []
    for entry in content:
        stages = tuple(
            (
                stage["setting"],
                FixedStage(
                    epochs=stage["epochs"], offset=stage["offset"], total=stage["total"],
                    anneal=Anneal.of(stage["anneal"]), value=entry["value"],
                ),
            )
            for stage in entry["stages"]
        )  # fmt: skip
        members.append(Member(**{**entry, "stages": stages}))
    return tuple(members)


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """What a search has seen of the worth of a longer training.

    Attributes:
        gain: By how much the second half of their epochs has raised the values of the last rung's arms, on average.
        error: Standard error of that.
        spared: Epochs that these arms were not trained for, as there was nothing left to decide.
    """

    gain: float = 0.0
    error: float = 0.0
    spared: int = 0


def doubling(search: Search | Halving) -> Doubling:
    """Return what the second half of the arms' epochs has brought; nothing for trainings that ended at their knees.

    All arms of the last rung tell of it: of a single one, the error of a small validation set hides what all show.
    """
    if isinstance(search, Search):
        return Doubling()
    found = Doubling(spared=search.spared)
    last = next((rung for rung in reversed(search.rungs) if rung.reason is None), None)
    if last is None:
        return found
    edges = [edge for edge in last.edges if search.outcome(edge) is not None]
    if edges and all(map(search.is_blind, edges)):
        return replace(found, gain=math.inf)  # they have yet to learn anything
    sign = 1.0 if search.mode == "max" else -1.0
    gains: dict[Edge, float] = {}
    for edge in edges:
        end, half = search.value(edge, last.epochs), search.value(edge, last.epochs / 2)
        if end is not None and half is not None:
            gains[edge] = sign * (end - half)
    if len(gains) > 1:
        error = statistics.stdev(gains.values()) / math.sqrt(len(gains))
    else:
        error = sum(map(search.standard_error, gains))
    return replace(found, gain=sum(gains.values()) / max(len(gains), 1), error=error)


def delivered_members(
    paths: Mapping[str, OptimizationPath],
    *,
    price: Price,
    rest: float,
    doubling: Doubling,
    number: int | None = None,
    anneal: Anneal | None = None,
    setting: Setting | None = None,
) -> tuple[Member, ...]:
    """Plan the delivery: the best path of every branch, several times, on all data, for what is left of a budget.

    As many members as the budget allows, of the length that the path would have had if the search had used up its
    share, but two in all at least: one very long training may break down late, and cannot be averaged with anything.
    Where the search has seen that a longer training is worth more than a standard error, half as many of twice the
    length, and so on, each doubling being taken to gain half as much as the one before: too many short ones lose much
    more than too few long ones. The last state of a path is stretched until the budget is used; the states before it
    keep their epochs.

    Args:
        paths: The best path of every branch.
        price: What an epoch costs.
        rest: What may be spent.
        doubling: What a longer training is worth.
        number: Members of each branch, in place of as many as the budget allows; their paths are not stretched.
        anneal: How the rate falls; by default linearly over the last 30%, if nothing else lowers it along the path.
        setting: Goes on top of every state's own.
    """
    best_first = sorted(paths, key=lambda branch: _worth(paths[branch]), reverse=True)
    schedules = {branch: _annealed(paths[branch], anneal) for branch in best_first}

    def costs(branch: str) -> tuple[float, float]:
        """Of the states before the last one, and of the last one."""
        each = [step.epochs * price(_with(step.setting, setting)) for step in paths[branch].steps]
        return sum(each[:-1]), each[-1]

    def spared(branch: str) -> float:
        last = paths[branch].steps[-1]
        return doubling.spared * price(_with(last.setting, setting))

    branches = list(best_first)
    if number is None:
        while len(branches) > 1 and sum(sum(costs(branch)) for branch in branches) > rest:
            branches.pop()
        # Of the length that they would have, had the search used up its share: a short one must not make them short.
        whole = sum(sum(costs(branch)) + spared(branch) for branch in branches)
        number = min(max(int(rest / whole), 1), MAX_MEMBERS) if whole else 1
        gain, least = doubling.gain, math.ceil(_MIN_MEMBERS / len(branches))
        while number // 2 >= least and gain > doubling.error:
            number, gain = number // 2, gain / 2
        number = max(number, least)
        before, last = (sum(part) for part in zip(*(costs(branch) for branch in branches), strict=True))
        stretch = (rest / number - before) / last if last else 1.0
        if stretch <= 0:  # not even the first states fit
            stretch = rest / number / (before + last)
    else:
        stretch = 1.0
    return tuple(
        Member(
            name=f"{branch or 'path'} {index}",
            branch=branch,
            stages=_stretched(schedules[branch], stretch, setting),
            value=paths[branch].value or 0.0,
        )
        for branch in branches
        for index in range(1, number + 1)
    )


Schedule = Literal["linear", "cosine"]


def control_settings(
    axes: Sequence[Axis], branches: Mapping[str, Setting], graph: TransitionGraph | None
) -> dict[str, Setting]:
    """Return what nobody plans: for every branch the last setting of each axis, at the configuration's own rate.

    Where states are written out, these are the final ones.

    Args:
        axes: Axes of the plan.
        branches: Branches of the plan.
        graph: A graph that was written out, if it was.
    """
    if not axes and not branches and graph is not None:
        return {branch: _without_rate(graph.settings[final]) for branch, final in graph.finals.items()}
    last = {key: value for axis in axes for key, value in _without_rate(axis.settings[-1]).items()}
    return {branch: {**setting, **last} for branch, setting in (branches or {"": {}}).items()}


def control_members(
    settings: Mapping[str, Setting],
    *,
    price: Price,
    total: float,
    schedules: Sequence[str] = ("linear", "cosine"),
    setting: Setting | None = None,
) -> tuple[Member, ...]:
    """Plan the control: one training per branch, the budget shared equally, without any search.

    Args:
        settings: What each branch is trained with.
        price: What an epoch costs.
        total: What the search and its delivery cost together; every schedule gets as much.
        schedules: ``"linear"`` is constant, then linear to zero over the last 30%; ``"cosine"`` falls all the time.
        setting: Goes on top of each of the settings.
    """
    members = []
    for schedule in schedules:
        checked_choice("schedules", schedule, get_args(Schedule))
        anneal = Anneal() if schedule == "linear" else Anneal(share=1.0, shape="cosine")
        for branch, own in settings.items():
            given = _with(own, setting)
            epochs = max(int(total / len(settings) / price(given)), 1)
            stage = FixedStage(epochs=epochs, offset=0, total=epochs, anneal=anneal, value=0.0)
            name = " ".join(filter(None, [schedule, branch]))
            members.append(Member(name=name, branch=branch, group=schedule, stages=((given, stage),)))
    return tuple(members)


def _annealed(path: OptimizationPath, anneal: Anneal | None) -> OptimizationPath:
    if anneal is None and path.anneal is None:
        rates = [tuple(value for key, value in step.setting.items() if is_rate(key)) for step in path.steps]
        is_lowered = len(set(rates)) > 1 or any(step.setting.get(ANNEAL) for step in path.steps)
        anneal = CONSTANT if is_lowered else Anneal()
    return replace(path, anneal=anneal or path.anneal)


def _stretched(
    path: OptimizationPath, stretch: float, setting: Setting | None
) -> tuple[tuple[Setting, FixedStage], ...]:
    """The stages of a path, its last state longer or shorter; the others shorter, too, if it is shortened."""
    steps = [step for step in path.steps if step.epochs > 0]
    epochs = [step.epochs if stretch >= 1 else max(round(step.epochs * stretch), 1) for step in steps]
    epochs[-1] = max(int(steps[-1].epochs * stretch + 1e-6), 1)
    changed = [replace(step, epochs=number) for step, number in zip(steps, epochs, strict=True)]
    whole = replace(path, steps=tuple(changed))
    return tuple(
        (_with(step.setting, setting), replace(stage, value=path.value or 0.0))
        for step, stage in zip(whole.steps, stages_of(whole), strict=True)
    )


def _with(setting: Setting, further: Setting | None) -> Setting:
    return {**plain_setting(setting), **(further or {})}


def _without_rate(setting: Setting) -> Setting:
    return {key: value for key, value in plain_setting(setting).items() if not is_rate(key)}


def _worth(path: OptimizationPath) -> float:
    return (path.value or 0.0) * (1.0 if path.mode == "max" else -1.0)
