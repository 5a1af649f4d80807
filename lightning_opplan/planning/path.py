"""The optimization path: states and their epochs in order, as a YAML file to read, edit, share and follow again."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from lightning_opplan.files import dump_yaml, parse_yaml, write_text
from lightning_opplan.messages import suggestion
from lightning_opplan.paths import list_paths, path_file
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, Setting, TransitionGraph
from lightning_opplan.planning.schedule import ANNEAL, CONSTANT, Anneal, FixedStage, annealed_state

__all__ = ["OptimizationPath", "PathStep", "plain_setting", "stages_of"]

_FORMAT: Final = 1
_ABSENT: Final = object()
_HEADER: Final = """\
# An optimization path: train each state in turn, for its number of epochs, from the weights of the one before.
# `opplan follow --path <this file>` trains along it. Epochs may be edited freely; states and settings must be those of
# `plan.graph`, where the configuration has one. A state with 0 epochs keeps the weights. `averaging: true` averages
# the weights of each state, `anneal: {share: 0.3, shape: linear}` lets the rate fall to zero over the last 30% of all
# epochs. An epoch of a stream without length is what lies between two validations: `val_check_interval` batches.
"""


@dataclass(frozen=True, kw_only=True)
class PathStep:
    """One state of a path.

    Attributes:
        state: Its name in the graph.
        epochs: Epochs to train, at least 0.
        setting: Its hyper-parameters by configuration key.
        value: What the state was worth in the search, if the path comes from one.
    """

    state: str
    epochs: float
    setting: Setting = field(default_factory=dict)
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class OptimizationPath:
    """The result of a search: P and T of eq. 1.

    Attributes:
        steps: The states with their epochs, in the order of training, without ``"start"``.
        monitor: The metric that was planned for.
        mode: Whether a higher or a lower value of it is better.
        is_complete: Whether it leads to a final state; that of a search whose budget was spent may end before.
        averaging: Whether weights are averaged along it, and the averages handed over and kept.
        anneal: How the learning rate falls at its end; ``None`` leaves it as the settings say.
    """

    steps: tuple[PathStep, ...]
    monitor: str | None = None
    mode: Mode = "max"
    is_complete: bool = True
    averaging: bool = False
    anneal: Anneal | None = None

    @property
    def total_epochs(self) -> float:
        """Epochs along the whole path."""
        return sum(step.epochs for step in self.steps)

    @property
    def value(self) -> float | None:
        """What the last state was worth in the search."""
        return self.steps[-1].value if self.steps else None

    @classmethod
    def load(cls, file: str | os.PathLike[str], *, graph: TransitionGraph | None = None) -> "OptimizationPath":
        """Read a path from its YAML file.

        Args:
            file: The file, or the name of a published path, such as ``"kinetics400"``.
            graph: Has the settings of steps that are written without ``set``, as those of published paths are.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a path, with the place and what is expected there.
        """
        name, file = os.fspath(file), Path(file)
        if not file.is_file():
            published = path_file(name)
            if published is None:
                raise FileNotFoundError(
                    "`path` must be the file of an optimization path, or the name of a published one, got "
                    f"{name!r}: no such file. " + suggestion(name, list_paths(), label="Published")
                )
            file = published
        try:
            content = parse_yaml(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"`path` must be a YAML file, got {str(file)!r}: {reason}.") from error
        try:
            return cls.from_dict(content, graph=graph)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def from_dict(cls, content: object, *, graph: TransitionGraph | None = None) -> "OptimizationPath":
        """Build a path from what `to_dict` returns, checking every entry; see `load`."""
        if not isinstance(content, Mapping) or not isinstance(content.get("steps"), Sequence):
            raise ValueError("A path must be a mapping with a list of `steps`.")
        if content.get("format", _FORMAT) != _FORMAT:
            raise ValueError(f"`format` must be {_FORMAT}, got {content['format']!r}: written by another version.")
        if content.get("mode", "max") not in ("max", "min"):
            raise ValueError(f"`mode` must be 'max' or 'min', got {content['mode']!r}.")
        steps = tuple(_step(index, entry, graph) for index, entry in enumerate(content["steps"], start=1))
        if not steps:
            raise ValueError("`steps` must hold at least one state, got none.")
        return cls(
            steps=steps,
            monitor=content.get("monitor"),
            mode=content.get("mode", "max"),
            is_complete=bool(content.get("complete", True)),
            averaging=bool(content.get("averaging", False)),
            anneal=None if content.get("anneal") is None else Anneal.of(content["anneal"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dictionaries, strings and numbers."""
        steps: list[dict[str, Any]] = []
        for step in self.steps:
            entry: dict[str, Any] = {"state": step.state, "epochs": step.epochs}
            if step.value is not None:
                entry["value"] = step.value
            steps.append({**entry, "set": dict(step.setting)})
        further: dict[str, Any] = {} if self.is_complete else {"complete": False}
        if self.averaging:
            further["averaging"] = True
        if self.anneal is not None:
            further["anneal"] = self.anneal.to_dict()
        return {"format": _FORMAT, "monitor": self.monitor, "mode": self.mode, **further, "steps": steps}

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the path as YAML, whole or not at all."""
        write_text(file, _HEADER + dump_yaml(self.to_dict(), width=110))
        return Path(file)

    def check(self, graph: TransitionGraph) -> None:
        """Make sure that the path fits a graph: known states, allowed edges, from the start to a final state.

        Raises:
            ValueError: At the first thing that does not fit, with what would.
        """
        previous = START
        for number, step in enumerate(self.steps, start=1):
            if step.state not in graph.settings:
                raise ValueError(
                    f"Step {number} of the path must be a state of the graph, got {step.state!r}. "
                    + suggestion(step.state, graph.states[1:], label="States")
                )
            if Edge(previous, step.state) not in graph.edges:
                children = graph.children(previous)
                raise ValueError(
                    f"Step {number} of the path must follow an edge of the graph, got {previous} → {step.state}. "
                    + (f"{previous!r} leads to {', '.join(map(repr, children))}. " if children else "")
                    + "States trained for 0 epochs are steps too."
                )
            setting = graph.settings[step.state]
            differing = [key for key in step.setting if key not in setting or setting[key] != step.setting[key]]
            if differing:
                key = differing[0]
                raise ValueError(
                    f"Step {number} of the path ({step.state!r}) must have the graph's setting, got "
                    f"{key}={step.setting[key]!r} where the graph has {setting.get(key, 'no such key')!r}."
                )
            previous = step.state
        if self.is_complete and previous not in graph.finals.values():
            finals = ", ".join(map(repr, graph.finals.values()))
            raise ValueError(f"The path must end in a final state of the graph ({finals}), got {previous!r}.")

    def differences(self, graph: TransitionGraph) -> list[str]:
        """Say where the settings of a path are not those of a graph's states of the same names."""
        found = []
        for number, step in enumerate(self.steps, start=1):
            known = graph.settings.get(step.state, {})
            for key in [*step.setting, *(key for key in known if key not in step.setting)]:
                if known.get(key, _ABSENT) != step.setting.get(key, _ABSENT):
                    there, here = (_said(setting, key) for setting in (known, step.setting))
                    found.append(f"step {number} ({step.state}): {key} is {here} in the path, {there} in the graph")
        return found

    def transferred(self, graph: TransitionGraph) -> "OptimizationPath":
        """Return the same states and epochs with the settings of a graph.

        Raises:
            ValueError: If the path does not fit the graph, see `check`.
        """
        steps = (replace(step, setting=graph.settings.get(step.state, step.setting)) for step in self.steps)
        transferred = replace(self, steps=tuple(steps))
        transferred.check(graph)
        return transferred

    def __str__(self) -> str:
        return " → ".join(f"{step.state} × {step.epochs:g}" for step in self.steps)


def _said(setting: Setting, key: str) -> str:
    return repr(setting[key]) if key in setting else "not set"


def plain_setting(setting: Setting) -> Setting:
    """Return what of a setting is for the configuration: all but how the rate falls in its state."""
    return {key: value for key, value in setting.items() if key != ANNEAL}


def stages_of(path: OptimizationPath) -> tuple[FixedStage, ...]:
    """Return the stages of a path: epochs, and how the rate falls over the whole path or within a state."""
    stages, before, total = [], 0.0, path.total_epochs
    for step in path.steps:
        if step.setting.get(ANNEAL):
            shape = annealed_state(step.setting[ANNEAL]).shape
            whole = Anneal(share=1.0, shape=shape)
            stages.append(FixedStage(epochs=step.epochs, offset=0, total=step.epochs or 1, anneal=whole))
        else:
            anneal = path.anneal or CONSTANT
            stages.append(FixedStage(epochs=step.epochs, offset=before, total=total or 1, anneal=anneal))
        before += step.epochs
    return tuple(stages)


def _step(number: int, entry: object, graph: TransitionGraph | None) -> PathStep:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("state"), str):
        raise ValueError(f"Step {number} must be a mapping with the name of a `state`, got {entry!r}.")
    unknown = set(entry) - {"state", "epochs", "set", "value"}
    if unknown:
        name = sorted(map(str, unknown))[0]
        hint = suggestion(name, ["state", "epochs", "set", "value"])
        raise ValueError(f"Step {number} must not have the entry {name!r}. {hint}")
    state, epochs, value, setting = entry["state"], entry.get("epochs"), entry.get("value"), entry.get("set") or {}
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 <= epochs < float("inf"):
        raise ValueError(f"`epochs` of step {number} must be a number ≥ 0, got {epochs!r}.")
    if value is not None and not isinstance(value, int | float):
        raise ValueError(f"`value` of step {number} must be a number, got {value!r}.")
    if not isinstance(setting, Mapping) or not all(isinstance(key, str) for key in setting):
        raise ValueError(f"`set` of step {number} must map configuration keys to values, got {setting!r}.")
    if "set" not in entry:
        if graph is None or state not in graph.settings:
            raise ValueError(
                f"Step {number} ({state!r}) must say what is `set` in it, or be a state of a graph that has its "
                "setting; it would train as the configuration is."
            )
        setting = graph.settings[state]
    return PathStep(state=state, epochs=epochs, setting=dict(setting), value=value)
