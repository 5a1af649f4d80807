"""The journal of a search: append-only JSON lines, from which the whole search can be rebuilt.

The first line describes the plan, every further line an edge that has finished or has been paused (or, after a loss,
its weights trained again), or another budget. A line is written with one call, flushed and synced before the search
goes on; a kill can tear the last line only, and a torn last line is left out when reading and cut off before the next
one is written.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from lightning_opplan.files import replacing
from lightning_opplan.messages import OpplanError, first_difference
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Edge, TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import BudgetOptions, SearchOptions
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.space import Arms

__all__ = ["UNMEASURED", "Journal", "JournalError", "Kind", "PlanRecord"]

UNMEASURED: Final = ("deliver", "control")
"""Kinds of plans whose trainings are not validated: what they count as says nothing."""

Kind = Literal["plan", "grid", "study", "deliver", "control"]
"""What a journal is of: a search, the hand-tuned grid, the variants of a path, the delivery, or the control."""

_BINARY: Final = getattr(os, "O_BINARY", 0)
"""On Windows files are texts by default."""

_SCHEMA: Final = 3
"""Schemas 1 (of before executors and presets) and 2 (of before pauses) are read and brought to this one."""


class JournalError(OpplanError, RuntimeError):
    """A journal that cannot be read, or that belongs to another plan."""


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What a search is about: the first line of its journal.

    Attributes:
        graph: The transition graph.
        monitor: Metric that is planned for.
        mode: Whether a higher or a lower value of it is better.
        seed: Seed of the plan.
        kind: What the journal is of.
        trainings: What the report of a grid or a study says of its trainings, by name.
        arms: For a search with a budget, the settings that it tries.
        options: Options of the search; those that results do not depend on are not kept, but for the budget.
        experiment: Everything else that the result depends on (the resolved configuration), as plain JSON values.
        code: Hashes of the user's code, by the names of functions and classes; the plan is the same with another code.
    """

    graph: TransitionGraph
    monitor: str
    mode: Mode
    seed: int
    kind: Kind = "plan"
    trainings: Mapping[str, Any] = field(default_factory=dict)
    arms: Arms | None = None
    options: SearchOptions = field(default_factory=SearchOptions)
    experiment: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A text that is the same for equal plans only."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        settings = {state: dict(self.graph.settings[state]) for state in self.graph.states[1:]}
        graph = {
            "settings": settings,
            "edges": [list(e) for e in self.graph.edges],
            "finals": dict(self.graph.finals),
        }
        content = {name: value for name, value in vars(self).items() if name not in ("options", "arms", "code")}
        content |= {"graph": graph, "knee": vars(self.options.rule), "search": self.options.decisive()}
        if self.arms is not None:
            content["arms"] = self.arms.to_dict()
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], budget: Mapping[str, Any] | None = None) -> "PlanRecord":
        """Build the record from what `to_dict` returns, and the amounts of its budget."""
        graph = content["graph"]
        rebuilt = TransitionGraph(graph["settings"], [tuple(edge) for edge in graph["edges"]], finals=graph["finals"])
        search = dict(content["search"])
        if budget is not None:
            decisive = {name: value for name, value in search["budget"].items() if name != "unit"}
            search["budget"] = BudgetOptions(**{**decisive, **budget})
        options = SearchOptions(knee=KneeRule(**_known(KneeRule, content["knee"])), **search)
        arms = None if content.get("arms") is None else Arms.from_dict(content["arms"], rebuilt.settings)
        return cls(**{**_known(cls, content), "graph": rebuilt, "options": options, "arms": arms})

    def changed_code(self, other: "PlanRecord") -> str | None:
        """Say what code is another one in the record of the same plan; ``None`` if none is, as far as is known."""
        changed = [name for name, digest in self.code.items() if other.code.get(name, digest) != digest]
        return f"The code of {' and '.join(map(repr, changed))} has changed since." if changed else None

    def search(self, outcomes: Iterable[EdgeOutcome] = ()) -> "Search | Halving":
        """Return the search that this describes, told some outcomes."""
        options, budget = self.options, self.options.budget
        if self.arms is not None and budget is not None:
            return Halving(
                self.arms,
                budget=budget.amount * budget.search_share,
                unit=budget.unit,
                mode=self.mode,
                eta=budget.eta,
                moves=budget.moves,
                is_delivered=budget.search_share < 1,
                seed=self.seed,
                outcomes=outcomes,
            )
        return Search(self.graph, mode=self.mode, beam=options.beam, racing=options.racing, outcomes=outcomes)


class Journal:
    """The journal file of one search.

    Args:
        file: Its place. Nothing is read or written before a method is called.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)

    @classmethod
    def of(cls, dirpath: str | os.PathLike[str]) -> "Journal":
        """Return the journal of the search in a folder."""
        return cls(Path(dirpath, "journal.jsonl"))

    def read(self) -> "tuple[PlanRecord, Search | Halving]":
        """Read the plan, and where its search stands.

        Raises:
            FileNotFoundError: If there is no journal.
            JournalError: If a line other than a torn last one cannot be read.
        """
        lines = self._complete_lines()
        if not lines:
            raise FileNotFoundError(f"{self.file}: no journal of a search here.")
        plan = _plan(self.file, lines[0])
        finished: dict[Edge, EdgeOutcome] = {}
        paused: dict[Edge, EdgeOutcome] = {}
        for number, line in enumerate(lines[1:], start=2):
            if not line.strip():
                continue
            content = _parsed(self.file, number, line)
            if content.get("type") == "budget":
                plan = replace(_plan(self.file, lines[0], content["budget"]), code=plan.code)
                continue
            if content.get("type") == "code":
                plan = replace(plan, code=content["code"])
                continue
            outcome = _outcome(self.file, number, content)
            if outcome.is_paused:
                paused[outcome.edge] = outcome
            elif content["type"] == "weights" and outcome.edge in finished:
                finished[outcome.edge] = replace(finished[outcome.edge], sha256=outcome.sha256)
            else:
                finished.setdefault(outcome.edge, outcome)
        try:
            return plan, plan.search((*paused.values(), *finished.values()))
        except ValueError as error:
            raise JournalError(f"{self.file} has an edge that its graph has not: {error}") from error

    def open(
        self,
        plan: PlanRecord,
        *,
        allow_changed_code: bool = False,
        replacing_plan: Callable[[str], None] | None = None,
    ) -> "Search | Halving":
        """Start the journal of a plan, or go on with it.

        A journal of another plan that knows of no edge yet is begun anew: it records nothing that could be lost.
        With another amount of its budget, the same search goes on.

        Args:
            plan: The plan.
            allow_changed_code: Go on although the user's code has changed.
            replacing_plan: Is told what has changed before a journal is begun anew.

        Returns:
            The search, where it stands.

        Raises:
            JournalError: If the journal belongs to another plan, or the code has changed; the message says where.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self._complete_lines():
            self._append(_first_record(plan))
            return plan.search()
        known, search = self.read()
        self._migrate(known)
        difference = first_difference(known.to_dict(), plan.to_dict())
        if difference and not search.known:
            if replacing_plan is not None:
                replacing_plan(difference)
            self.file.unlink()
            return self.open(plan)
        if difference:
            raise JournalError(
                f"{self.file} is the journal of another plan: {difference}. "
                "Choose another directory, or restore the configuration to go on with this one."
            )
        changed = known.changed_code(plan)
        if changed is not None and search.known and not allow_changed_code:
            raise JournalError(
                f"{changed} Delete {self.file.parent} to begin anew, or go on with `allow_changed_code` "
                "(`--plan.allow_changed_code true`)."
            )
        if changed is not None:
            self._append({"type": "code", "code": dict(plan.code)})
        if plan.options.budget != known.options.budget:
            self._append({"type": "budget", "budget": _amounts(plan)})
        return plan.search(search.known)

    def append(self, outcome: EdgeOutcome) -> None:
        """Record an edge that has finished or has been paused. When this returns, it is on the disk.

        Raises:
            OSError: If it could not be written whole; the journal is then as it was before.
        """
        self._append({"type": "pause" if outcome.is_paused else "edge", **outcome.to_dict()})

    def append_weights(self, outcome: EdgeOutcome) -> None:
        """Record that the weights of a finished edge had to be trained again; its value stays."""
        self._append({"type": "weights", **outcome.to_dict()})

    def _migrate(self, plan: PlanRecord) -> None:
        """Write the first line of a journal of an older version anew; the others stay as they are."""
        first, *others = self._complete_lines()
        if json.loads(first)["schema"] == _SCHEMA:
            return
        record = json.dumps(_first_record(plan), allow_nan=False, ensure_ascii=False)
        with replacing(self.file) as partial:
            partial.write_bytes(record.encode() + b"\n" + b"".join(others))

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        end = sum(len(complete) for complete in self._complete_lines())
        is_new = not self.file.exists()
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
        try:
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                written = os.write(descriptor, line)
                if written < len(line):
                    raise OSError(f"only {written} of {len(line)} bytes could be written")
                os.fsync(descriptor)
            except OSError as error:
                os.ftruncate(descriptor, end)
                raise OSError(
                    error.errno,
                    f"The journal could not be written ({error}). Its former lines are kept",
                    str(self.file),
                ) from error
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(self.file.parent)

    def _complete_lines(self) -> list[bytes]:
        if not self.file.exists():
            return []
        return [line for line in self.file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _first_record(plan: PlanRecord) -> dict[str, Any]:
    return {"type": "plan", "schema": _SCHEMA, **plan.to_dict(), "budget": _amounts(plan), "code": dict(plan.code)}


def _amounts(plan: PlanRecord) -> dict[str, Any] | None:
    budget = plan.options.budget
    return None if budget is None else budget.amounts()


def _plan(file: Path, line: bytes, budget: Mapping[str, Any] | None = None) -> PlanRecord:
    content = _parsed(file, 1, line)
    if content.get("type") != "plan":
        raise JournalError(f"{file}, line 1: must describe the plan, got a line of type {content.get('type')!r}.")
    if content.get("schema") not in (1, 2, _SCHEMA):
        raise JournalError(
            f"{file} has schema {content.get('schema')!r}, this version reads 1 to {_SCHEMA}. "
            "Go on with the version that wrote it, or choose another directory."
        )
    try:
        budget = budget or content.get("budget")
        return PlanRecord.from_dict(content if content["schema"] == _SCHEMA else _upgraded(content), budget)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{file}, line 1: does not describe a plan ({error!r}).") from error


def _upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the plan of schema 1 or 2 to the present one."""
    search, experiment = dict(content.get("search", {})), dict(content["experiment"])
    trainings = search.pop("trainings", None)
    search["preset"] = "fast" if search.pop("racing", False) else "paper"
    search["start_value"] = experiment.pop("start_value", None)
    kind = "plan" if trainings is None else "grid" if all("decay" in row for row in trainings.values()) else "study"
    knee = {**vars(KneeRule(max_risk=0.0)), **_known(KneeRule, content["knee"])}
    return {
        **content, "search": search, "experiment": experiment, "knee": knee, "kind": kind,
        "trainings": trainings or {},
    }  # fmt: skip


def _outcome(file: Path, number: int, content: Mapping[str, Any]) -> EdgeOutcome:
    if content.get("type") not in ("edge", "weights", "pause"):
        raise JournalError(
            f"{file}, line {number}: must describe an edge, got a line of type {content.get('type')!r}."
        )
    try:
        # Before schema 3 some facts stood in a dictionary of their own.
        return EdgeOutcome.from_dict({**content, **(content.get("details") or {})})
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{file}, line {number}: does not describe an edge ({error!r}).") from error


def _known(cls: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a mapping that are fields of a dataclass."""
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in content.items() if name in names}


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise JournalError(f"{file}, line {number}: is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise JournalError(f"{file}, line {number}: must be a JSON object, got {content!r}.")
    return content


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":  # it opens no directories
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
