"""The space of a budgeted search, and the arms that it tries: settings that are each trained as they are."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np

from lightning_opplan.planning.graph import START, Axis, Setting, TransitionGraph
from lightning_opplan.planning.schedule import ANNEAL

__all__ = ["Arm", "Arms", "SearchSpace", "is_rate"]

_NUM_ARMS: Final = 18
_NUM_ARMS_OF_FEW_RATES: Final = 12  # where at most two rates are given


def is_rate(key: str) -> bool:
    """Whether a configuration key is a learning rate, by its last word.

    Example:
        >>> is_rate("model.learning_rate"), is_rate("optimizer.init_args.lr"), is_rate("data.frame_rate")
        (True, True, False)
    """
    return re.fullmatch(r"(.*_)?(lr|learning_rate)", key.rpartition(".")[2]) is not None


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a budgeted search may set.

    Attributes:
        axes: Ordered lists of settings, from how training starts to how it ends.
        branches: Settings of alternatives that never mix, by name.
        choices: Values without an order, by configuration key: weight decay, optimizer, learning rate.

    Raises:
        ValueError: If it is empty, or two of its parts set the same key.
    """

    axes: Sequence[Axis] = ()
    branches: Mapping[str, Setting] = field(default_factory=dict)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.axes or self.branches or self.choices):
            raise ValueError("A search space must have `axes`, `branches` or `choices`, got none of them.")
        if ANNEAL in self.keys:
            raise ValueError(
                "`anneal` must be left out of a search with a `budget`: its trainings have no end of their own."
            )
        for key, values in self.choices.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"`choices` of {key!r} must be a list of values, got {values!r}.")
        keys = [key for axis in self.axes for key in axis.settings[0]] + list(self.choices)
        keys += list({key: None for setting in self.branches.values() for key in setting})
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(
                f"`{twice}` must be set by one axis, by the branches, or by the choices, got two of them."
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """All configuration keys that it sets, but for those of the branches."""
        return (*(key for axis in self.axes for key in axis.settings[0]), *self.choices)

    def arms(self, *, number: int | None = None, own: Setting | None = None, moves: int = 0, seed: int = 0) -> "Arms":
        """Choose arms: the configuration's own setting in each branch, then settings spread over the space.

        Of every branch, setting of the first axis and learning rate there are as many as of any other; all else is at
        random. The first arms are the same, whatever their number.

        Args:
            number: How many; by default 18, or 12 where at most two rates are given.
            own: Values of the configuration, as far as they are known.
            moves: Whether the arms may also be forked, and so their neighbours belong to the graph.
            seed: Seed of what is random.

        Raises:
            ValueError: If there is nothing to choose from.
        """
        parts = _parts(self, own or {})
        few = all(len(part.settings) <= 2 for part in parts if part.is_rate)
        number = number or (_NUM_ARMS_OF_FEW_RATES if few else _NUM_ARMS)
        branches = list(self.branches) or [""]
        chosen = dict.fromkeys(((branch, tuple(part.last for part in parts)) for branch in branches), True)
        for cell in _spread(parts, branches, chosen, np.random.default_rng(seed)):
            if len(chosen) >= number:
                break
            chosen[cell] = False
        if len(chosen) < 2:
            raise ValueError("A search space must hold at least two settings, got one: there is nothing to find.")
        arms = [self._arm(parts, branch, point, is_own) for (branch, point), is_own in chosen.items()]
        # A fork into the setting of another arm would be that arm with a detour.
        forks = [
            (arm.name, self._arm(parts, arm.branch, point, False))
            for arm in (arms if moves else ())
            for point in _neighbours(parts, arm.point)
            if (arm.branch, point) not in chosen
        ]
        return Arms(
            arms=tuple(arms),
            forks=tuple(forks),
            protected=tuple(part.name for part in parts if part.is_protected),
        )

    def _arm(self, parts: "Sequence[_Part]", branch: str, point: "Point", is_own: bool) -> "Arm":
        setting = dict(self.branches.get(branch, {}))
        places, is_last, words = {}, True, []
        for part, index in zip(parts, point, strict=True):
            setting.update(part.at(index))
            places[part.name] = part.label(index)
            words.append(part.word(index))
            is_last = is_last and (not part.is_ordered or index == len(part.settings) - 1)
        name = "/".join(filter(None, [branch, " ".join(filter(None, words))]))
        return Arm(
            name=name, branch=branch, point=point, setting=setting, places=places, is_own=is_own, is_last=is_last
        )


Point = tuple[int, ...]
"""A place in a space: for every part the index of its setting."""

_OWN: Final = -1
"""Index of the configuration's own values, where the part does not list them."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A setting that is trained as it is.

    Attributes:
        name: Its name, that of its state in the graph.
        branch: Its branch, empty if there are none.
        point: Its place in the space.
        setting: Its setting.
        places: What it has of every axis and choice, in words.
        is_own: Whether it is the configuration's own setting, at the last position of every axis.
        is_last: Whether it is at the last position of every axis.
    """

    name: str
    branch: str
    point: Point
    setting: Setting
    places: Mapping[str, str]
    is_own: bool
    is_last: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = ("name", "branch", "places", "is_own", "is_last")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Arms:
    """The arms of a search.

    Attributes:
        arms: Those that it begins with, in the order in which they are taken.
        forks: Those that an arm may be forked into, with its name.
        protected: Axes of whose every setting one arm is kept to the end.
    """

    arms: tuple[Arm, ...]
    forks: tuple[tuple[str, Arm], ...] = ()
    protected: tuple[str, ...] = ()

    @property
    def graph(self) -> TransitionGraph:
        """A state for every arm, with an edge from the start, and one for every fork."""
        settings = {arm.name: arm.setting for arm in (*self.arms, *(fork for _, fork in self.forks))}
        edges = [(START, arm.name) for arm in self.arms] + [(parent, fork.name) for parent, fork in self.forks]
        return TransitionGraph(settings, edges, finals={name: name for name in settings})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "arms": [arm.to_dict() for arm in self.arms],
            "forks": [[parent, fork.to_dict()] for parent, fork in self.forks],
            "protected": list(self.protected),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], settings: Mapping[str, Setting]) -> "Arms":
        """Build arms from what `to_dict` returns, and the settings of their states."""

        def arm(entry: Mapping[str, Any]) -> Arm:
            return Arm(**entry, point=(), setting=settings[entry["name"]])

        return cls(
            arms=tuple(arm(entry) for entry in content["arms"]),
            forks=tuple((parent, arm(entry)) for parent, entry in content["forks"]),
            protected=tuple(content["protected"]),
        )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """An axis or a choice.

    Attributes:
        name: Its name.
        settings: What it may set.
        own: What the configuration has, as far as it is known.
        is_ordered: Whether later settings are how training ends; of learning rates it is not known which is right.
        is_rate: Whether it is of learning rates.
        is_protected: Whether one arm of every setting is kept to the end.
    """

    name: str
    settings: Sequence[Setting]
    own: Setting
    is_ordered: bool
    is_rate: bool
    is_protected: bool = False

    @property
    def last(self) -> int:
        """Where training ends if nobody plans: at the last of ordered settings, else at the configuration's own."""
        if self.is_ordered:
            return len(self.settings) - 1
        return next((index for index, setting in enumerate(self.settings) if setting == self.own), _OWN)

    def at(self, index: int) -> Setting:
        return self.own if index == _OWN else self.settings[index]

    def label(self, index: int) -> str:
        words = [f"{key.rpartition('.')[2]} {value}" for key, value in self.at(index).items()]
        return ", ".join(words) or "as configured"

    def word(self, index: int) -> str:
        """What stands for it in the name of an arm."""
        name, values = self.name.rpartition(".")[2], list(self.at(index).values())
        if self.is_ordered or (index != _OWN and not (len(values) == 1 and _is_short(values[0]))):
            return f"{name}={index + 1}" if self.is_ordered else f"{name}=({index + 1})"
        return f"{name}={values[0]}" if values and _is_short(values[0]) else f"{name}=own"


def _is_short(value: object) -> bool:
    """Whether a value can stand in a name; a text must not look like another value or a way into a state."""
    return isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.+-]{0,19}", value) is not None
    )


def _parts(space: SearchSpace, own: Setting) -> list[_Part]:
    parts = []
    for axis in space.axes:
        rate = any(map(is_rate, axis.settings[0]))
        parts.append(
            _Part(
                name=axis.name,
                settings=axis.settings,
                own={key: own[key] for key in axis.settings[0] if key in own},
                is_ordered=not rate,
                is_rate=rate,
                is_protected=axis.protect,
            )
        )
    for key, values in space.choices.items():
        settings, given = [{key: value} for value in values], {key: own[key]} if key in own else {}
        parts.append(_Part(name=key, settings=settings, own=given, is_ordered=False, is_rate=is_rate(key)))
    return parts


def _spread(
    parts: Sequence[_Part], branches: Sequence[str], taken: Mapping[tuple[str, Point], bool], draw: np.random.Generator
) -> Iterator[tuple[str, Point]]:
    """All points but those taken, in rounds over the branches, settings of the first axis, and rates."""
    first = next((index for index, part in enumerate(parts) if part.is_ordered), None)
    even = [index for index, part in enumerate(parts) if part.is_rate or index == first]
    others = [index for index in range(len(parts)) if index not in even]
    cells: list[tuple[Any, ...]] = list(product(branches, *(range(len(parts[index].settings)) for index in even)))
    size = prod(len(parts[index].settings) for index in others)
    used: dict[Any, set[Point]] = {cell: set() for cell in cells}
    for branch, point in taken:
        own: tuple[Any, ...] = (branch, *(point[index] for index in even))
        if own in used:
            used[own].add(tuple(point[index] for index in others))
    # In the first round, what is there already counts. Within a round, each next cell has the rate, the branch and the
    # setting of the first axis that have come least often, so that few arms are as different as can be.
    waiting = [cell for cell in cells if not used[cell]]
    seen = Counter((place, index) for cell in cells if used[cell] for place, index in enumerate(cell))
    order = sorted(range(len(even) + 1), key=lambda place: place == 0 or not parts[even[place - 1]].is_rate)
    while waiting or any(_num_listed(points) < size for points in used.values()):
        shuffled = [waiting[index] for index in draw.permutation(len(waiting))]
        while shuffled:
            cell = min(shuffled, key=lambda cell: [seen[place, cell[place]] for place in order])
            shuffled.remove(cell)
            if _num_listed(used[cell]) == size:
                continue
            seen.update(enumerate(cell))
            rest = _unused(parts, others, used[cell], draw)
            used[cell].add(rest)
            branch, *positions = cell
            index_of = {**dict(zip(even, positions, strict=True)), **dict(zip(others, rest, strict=True))}
            yield branch, tuple(index_of[number] for number in range(len(parts)))
        waiting = [cell for cell in cells if _num_listed(used[cell]) < size]


def _num_listed(points: set[Point]) -> int:
    return sum(_OWN not in point for point in points)


def _unused(parts: Sequence[_Part], others: Sequence[int], used: set[Point], draw: np.random.Generator) -> Point:
    while True:
        point = tuple(int(draw.integers(len(parts[index].settings))) for index in others)
        if point not in used:
            return point


def _neighbours(parts: Sequence[_Part], point: Point) -> Iterator[Point]:
    """One step on one axis or choice; the rate only downwards."""
    for place, (part, index) in enumerate(zip(parts, point, strict=True)):
        for other in () if index == _OWN else (index + 1, index - 1):
            if not 0 <= other < len(part.settings):
                continue
            if part.is_rate and not _is_lower(part, other, index):
                continue
            yield (*point[:place], other, *point[place + 1 :])


def _is_lower(part: _Part, index: int, other: int) -> bool:
    """Whether the rate of one setting is below that of another; of what is no number nothing is known."""
    rates = [next(value for key, value in part.settings[each].items() if is_rate(key)) for each in (index, other)]
    return all(isinstance(rate, int | float) for rate in rates) and rates[0] < rates[1]
