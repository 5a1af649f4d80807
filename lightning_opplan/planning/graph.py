"""The transition graph: states, the settings they train with, and the allowed edges between them.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.2 and Figure 1.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from itertools import product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from lightning_opplan.messages import suggestion

__all__ = ["START", "Axis", "Edge", "Setting", "TransitionGraph", "split_route"]

START: Final = "start"
"""Name of S0, the state before any training."""

_ROUTE: Final = re.compile(r"(.*)#(\d+)", re.DOTALL)

Setting = Mapping[str, Any]
"""Values of hyper-parameters by configuration key, such as ``{"model.learning_rate": 0.01}``."""


class Edge(NamedTuple):
    """A transition: fine-tune the parent state's weights with the child state's setting."""

    parent: str
    child: str

    def __str__(self) -> str:
        return f"{self.parent} → {self.child}"


def split_route(name: str) -> tuple[str, int]:
    """Split the name of a way into a state, as the parents of a beam's edges have it, into state and rank from 0.

    Example:
        >>> split_route("2-1#3"), split_route("2-1")
        (('2-1', 2), ('2-1', 0))
    """
    match = _ROUTE.fullmatch(name)
    return (name, 0) if match is None else (match[1], int(match[2]) - 1)


@dataclass(frozen=True)
class Axis:
    """An ordered list of settings, from how training starts to how it ends.

    Attributes:
        name: What the axis is called in messages and tables.
        settings: One setting per step, all over the same configuration keys.
        reversible: Whether the axis may step back by one while another one advances (the paper's extended
            graph: shorter clips and a lower rate at once).
        protect: Whether a budgeted search keeps one arm of every step to its end.
    """

    name: str
    settings: Sequence[Setting]
    reversible: bool = False
    protect: bool = False

    def __post_init__(self) -> None:
        if not self.settings:
            raise ValueError(f"`settings` of axis {self.name!r} must hold at least one setting, got none.")
        keys = [sorted(setting) for setting in self.settings]
        if any(other != keys[0] for other in keys):
            raise ValueError(
                f"`settings` of axis {self.name!r} must all name the same keys, got {keys!r}. "
                "A key that a step leaves out would keep a value of the base configuration."
            )


class TransitionGraph:
    """States and the edges that a search may take, directed and without cycles.

    Build one with `lattice`, the graph of the paper, or from edges written out by hand.

    Args:
        settings: The setting of each state by name, without ``"start"``.
        edges: ``(parent, child)`` pairs; the parent of a first state is ``"start"``.
        finals: The final state of each branch, by the branch's name. By default every state without a child.

    Attributes:
        states: Names in topological order, ``"start"`` first.
        edges: `Edge` tuples, ordered by child and then by parent.
        settings: The setting of each state, empty for ``"start"``.
        finals: The final state of each branch, by the branch's name.
        axes: What a lattice was made of; empty where edges are written out.
        branches: The same.

    Raises:
        ValueError: If the graph has a cycle, an unknown or unreachable state, or no final state.

    Example:
        >>> graph = TransitionGraph(
        ...     {"warm": {"model.lr": 0.1}, "cool": {"model.lr": 0.01}}, [("start", "warm"), ("warm", "cool")]
        ... )
        >>> graph.states, graph.finals["cool"]
        (('start', 'warm', 'cool'), 'cool')
    """

    def __init__(
        self,
        settings: Mapping[str, Setting],
        edges: Iterable[tuple[str, str]],
        *,
        finals: Mapping[str, str] | None = None,
    ) -> None:
        if START in settings:
            raise ValueError(f"`settings` must not name {START!r}: it is the state before any training.")
        for state in filter(_ROUTE.fullmatch, settings):
            raise ValueError(f"`settings` must name states without '#' and a number at the end, got {state!r}.")
        given = list(dict.fromkeys(Edge(*edge) for edge in edges))
        _check_names(given, settings)
        order = _topological_order((START, *settings), given)
        rank = {state: position for position, state in enumerate(order)}
        self.states: tuple[str, ...] = order
        self.edges: tuple[Edge, ...] = tuple(sorted(given, key=lambda e: (rank[e.child], rank[e.parent])))
        self.settings: Mapping[str, Setting] = MappingProxyType(
            {START: {}, **{state: _plain_setting(state, settings[state]) for state in order[1:]}}
        )
        self._parents: dict[str, list[str]] = {state: [] for state in order}
        self._children: dict[str, list[str]] = {state: [] for state in order}
        for edge in self.edges:
            self._parents[edge.child].append(edge.parent)
            self._children[edge.parent].append(edge.child)
        self._check_reachable()
        if finals is None:
            finals = {state: state for state in order[1:] if not self._children[state]}
        if not isinstance(finals, Mapping):
            raise ValueError(f"`finals` must name a state for each branch, as in {{'': 'last'}}, got {finals!r}.")
        for branch, final in finals.items():
            if final not in settings:
                raise ValueError(
                    f"`finals` must name states of the graph, got {final!r} for branch {branch!r}. "
                    + suggestion(final, settings)
                )
        if not finals:
            raise ValueError("`finals` must name at least one state, got none: a search needs an end.")
        self.finals: Mapping[str, str] = MappingProxyType(dict(finals))
        self.axes: tuple[Axis, ...] = ()
        self.branches: Mapping[str, Setting] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Views that cannot be changed cannot be pickled either.
        return {**vars(self), "settings": dict(self.settings), "finals": dict(self.finals)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.settings, self.finals = MappingProxyType(state["settings"]), MappingProxyType(state["finals"])

    @classmethod
    def lattice(
        cls,
        *,
        axes: Sequence[Axis],
        branches: Mapping[str, Setting] | None = None,
        starts: Sequence[str] | None = None,
    ) -> "TransitionGraph":
        """Build the graph of the paper: every combination of the axes' settings, once per branch.

        A transition advances one axis by one step. If an axis is reversible, it may also step back by one while
        another one advances. A state is named by its branch and its 1-based position on each axis:
        ``"uniform/2-1"``, or ``"2-1"`` if there are no branches.

        Args:
            axes: The axes; the paper's are clip length (reversible in the extended graph) and learning rate.
            branches: Settings of alternatives that never mix, by name. Each has one final state: the end of
                all axes.
            starts: Positions that ``"start"`` opens, such as ``["1-1", "2-1"]``. By default the first one and
                the one a step further along the first axis.

        Raises:
            ValueError: If more than one axis is reversible (which allows cycles), two axes or an axis and a
                branch set the same key, a name is taken twice, or `starts` names no position.

        References:
            Section 3.2, principles (1) to (3), and Figure 1.
        """
        _check_axes(axes, branches or {})
        sizes = [len(axis.settings) for axis in axes]
        # Along anti-diagonals, the furthest on the first axis first: the numbering of Figure 1.
        positions = sorted(
            product(*(range(1, size + 1) for size in sizes)),
            key=lambda position: (sum(position), [-step for step in position]),
        )
        if starts is None:
            first, second = (1,) * len(axes), (2, *(1,) * (len(axes) - 1))
            opened = [first, *([second] if sizes[0] > 1 else [])]
        else:
            by_name = {_label(position): position for position in positions}
            for start in starts:
                if start not in by_name:
                    raise ValueError(
                        f"`starts` must name positions on the axes, got {start!r}. "
                        + suggestion(start, by_name, label="Positions")
                    )
            opened = [by_name[start] for start in starts]

        settings: dict[str, Setting] = {}
        edges: list[tuple[str, str]] = []
        for branch, branch_setting in (branches or {"": {}}).items():
            prefix = f"{branch}/" if branch else ""
            for position in positions:
                steps = (axis.settings[step - 1] for axis, step in zip(axes, position, strict=True))
                settings[prefix + _label(position)] = {**branch_setting, **_merged(steps)}
            edges += [(START, prefix + _label(position)) for position in opened]
            edges += [
                (prefix + _label(position), prefix + _label(following))
                for position in positions
                for following in _advances(position, axes)
            ]
        finals = {branch: f"{branch}/{_label(sizes)}" for branch in branches or ()} or {"final": _label(sizes)}
        graph = cls(settings, edges, finals=finals)
        graph.axes, graph.branches = tuple(axes), dict(branches or {})
        return graph

    def parents(self, state: str) -> tuple[str, ...]:
        """Return the parents of a state, in topological order."""
        return tuple(self._parents[state])

    def children(self, state: str) -> tuple[str, ...]:
        """Return the children of a state, in topological order."""
        return tuple(self._children[state])

    def __repr__(self) -> str:
        return f"TransitionGraph({len(self.states) - 1} states, {len(self.edges)} edges, finals={dict(self.finals)})"

    def _check_reachable(self) -> None:
        reached = {START}
        for edge in self.edges:
            if edge.parent in reached:
                reached.add(edge.child)
        lost = [state for state in self.states if state not in reached]
        if lost:
            raise ValueError(
                f"`edges` must lead from {START!r} to every state, got no way to {', '.join(map(repr, lost))}."
            )


def _plain_setting(state: str, setting: Setting) -> dict[str, Any]:
    """Turn NumPy scalars and tuples into what YAML and JSON hold; journals, paths and checkpoints need them plain."""
    plain = {key: _plain(value) for key, value in setting.items()}
    for key, value in plain.items():
        try:
            yaml.safe_dump(value)
            json.dumps(value, allow_nan=False)
        except (yaml.YAMLError, TypeError, ValueError):
            raise ValueError(
                f"`{key}` of state {state!r} must be a plain value (finite number, text, list, mapping), "
                f"got {value!r}."
            ) from None
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _label(position: Iterable[int]) -> str:
    return "-".join(map(str, position))


def _merged(settings: Iterable[Setting]) -> dict[str, Any]:
    return {key: value for setting in settings for key, value in setting.items()}


def _advances(position: Sequence[int], axes: Sequence[Axis]) -> Iterator[tuple[int, ...]]:
    """The positions that a transition from here may lead to."""
    for forward, axis in enumerate(axes):
        if position[forward] == len(axis.settings):
            continue
        advanced = [*position[:forward], position[forward] + 1, *position[forward + 1 :]]
        yield tuple(advanced)
        for back, other in enumerate(axes):
            if back != forward and other.reversible and position[back] > 1:
                yield tuple(step - 1 if index == back else step for index, step in enumerate(advanced))


def _check_axes(axes: Sequence[Axis], branches: Mapping[str, Setting]) -> None:
    if not axes:
        raise ValueError("`axes` must hold at least one axis, got none.")
    if sum(axis.reversible for axis in axes) > 1:
        names = [axis.name for axis in axes if axis.reversible]
        raise ValueError(
            f"`reversible` must be set for one axis at most, got {names!r}. "
            "Two of them could step back in turn, and the graph would have cycles."
        )
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):
        raise ValueError(f"`axes` must have different names, got {names!r}.")
    owner: dict[str, str] = {}
    for name, keys in [
        *((f"axis {axis.name!r}", axis.settings[0]) for axis in axes),
        *((f"branch {branch!r}", setting) for branch, setting in branches.items()),
    ]:
        for key in keys:
            taken = owner.get(key)
            if taken and not (taken.startswith("branch") and name.startswith("branch")):
                raise ValueError(f"`{key}` must be set by one axis or by the branches, got {taken} and {name}.")
            owner[key] = name
    keys_by_branch = {branch: sorted(setting) for branch, setting in branches.items()}
    if len({tuple(keys) for keys in keys_by_branch.values()}) > 1:
        raise ValueError(f"`branches` must all name the same keys, got {keys_by_branch!r}.")


def _check_names(edges: Sequence[Edge], settings: Mapping[str, Setting]) -> None:
    for edge in edges:
        for state in edge:
            if state != START and state not in settings:
                raise ValueError(
                    f"`edges` must connect states with settings, got {str(edge)!r}. " + suggestion(state, settings)
                )


def _topological_order(states: Sequence[str], edges: Sequence[Edge]) -> tuple[str, ...]:
    """Order the states so that parents come first, otherwise as they were given."""
    given = {state: position for position, state in enumerate(states)}
    sorter = TopologicalSorter({state: [] for state in states})
    for edge in edges:
        sorter.add(edge.child, edge.parent)
    try:
        sorter.prepare()
    except CycleError as error:
        # CycleError lists the cycle with its first state repeated at the end.
        raise ValueError(f"`edges` must not have a cycle, got {' → '.join(error.args[1][::-1])}.") from None
    order: list[str] = []
    ready: list[tuple[int, str]] = []
    while sorter.is_active():
        for state in sorter.get_ready():
            heappush(ready, (given[state], state))
        _, state = heappop(ready)
        order.append(state)
        sorter.done(state)
    return tuple(order)
