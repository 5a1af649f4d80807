"""The journal of a search: append-only JSON lines, from which the whole search can be rebuilt.

The first line describes the plan, every further line one finished edge (or, after a loss, its weights trained again).
A line is written with one call, flushed and synced before the search goes on; a kill can tear the last line only, and
a torn last line is left out when reading and cut off before the next one is written.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Edge, TransitionGraph
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.messages import first_difference
from lightning_opplan.planning.search import EdgeOutcome

__all__ = ["SEARCH_DEFAULTS", "Journal", "JournalError", "PlanRecord"]

SEARCH_DEFAULTS: Final[Mapping[str, Any]] = {
    "value": "fitted", "racing": False, "beam": 1, "max_epochs_per_edge": None, "trainings": None,
}  # fmt: skip
"""The options of a search as the paper has it."""

_SCHEMA: Final = 2
"""Schema 1, of before executors and presets, is read and brought to this one by `Journal.open`."""


class JournalError(RuntimeError):
    """A journal that cannot be read, or that belongs to another plan."""


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What a search is about: the first line of its journal.

    Attributes:
        graph: The transition graph.
        monitor: Metric that is planned for.
        mode: Whether a higher or a lower value of it is better.
        seed: Seed of the plan.
        knee: Options of the knee rule, by name.
        search: Options of the search, by name: what `SEARCH_DEFAULTS` has, and the grid's trainings if it is one.
        experiment: Everything else that the result depends on (the resolved configuration), as plain JSON values.
    """

    graph: TransitionGraph
    monitor: str
    mode: Mode
    seed: int
    knee: Mapping[str, Any]
    search: Mapping[str, Any] = field(default_factory=lambda: SEARCH_DEFAULTS)
    experiment: Mapping[str, Any]

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
        content = {**vars(self), "graph": graph, "search": dict(self.search)}
        plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PlanRecord":
        """Build the record from what `to_dict` returns."""
        graph = content["graph"]
        rebuilt = TransitionGraph(graph["settings"], [tuple(edge) for edge in graph["edges"]], finals=graph["finals"])
        return cls(**{**{key: content[key] for key in cls.__dataclass_fields__}, "graph": rebuilt})


class Journal:
    """The journal file of one search.

    Args:
        file: Its place. Nothing is read or written before a method is called.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)

    def read(self) -> tuple[PlanRecord, dict[Edge, EdgeOutcome]]:
        """Read the plan and the outcomes so far.

        Raises:
            FileNotFoundError: If there is no journal.
            JournalError: If a line other than a torn last one cannot be read.
        """
        lines = self._complete_lines()
        if not lines:
            raise FileNotFoundError(f"{self.file}: no journal of a search here.")
        plan = _plan(self.file, lines[0])
        outcomes: dict[Edge, EdgeOutcome] = {}
        for number, line in enumerate(lines[1:], start=2):
            content = _parsed(self.file, number, line)
            outcome = _outcome(self.file, number, content)
            if content["type"] == "weights" and outcome.edge in outcomes:
                known = outcomes[outcome.edge]
                details = {**(known.details or {}), "sha256": (outcome.details or {}).get("sha256")}
                outcome = replace(known, details=details)
                outcomes[outcome.edge] = outcome
            outcomes.setdefault(outcome.edge, outcome)
        return plan, outcomes

    def open(self, plan: PlanRecord) -> dict[Edge, EdgeOutcome]:
        """Start the journal of a plan, or go on with it.

        A journal of another plan that has no finished edge yet is begun anew: it records nothing that could be lost.

        Returns:
            The outcomes of the edges that have finished already.

        Raises:
            JournalError: If the journal belongs to another plan; the message names the first difference.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self._complete_lines():
            self._append({"type": "plan", "schema": _SCHEMA, **plan.to_dict()})
            return {}
        known, outcomes = self.read()
        self._migrate(known)
        difference = first_difference(known.to_dict(), plan.to_dict())
        if difference and not outcomes:
            self.file.unlink()
            return self.open(plan)
        if difference:
            raise JournalError(
                f"{self.file} is the journal of another plan: {difference}. "
                "Choose another directory, or restore the configuration to go on with this one."
            )
        return outcomes

    def append(self, outcome: EdgeOutcome) -> None:
        """Record a finished edge. When this returns, it is on the disk.

        Raises:
            OSError: If it could not be written whole; the journal is then as it was before.
        """
        self._append({"type": "edge", **asdict(outcome), "edge": list(outcome.edge)})

    def append_weights(self, outcome: EdgeOutcome) -> None:
        """Record that the weights of a finished edge had to be trained again; its value stays."""
        self._append({"type": "weights", **asdict(outcome), "edge": list(outcome.edge)})

    def _migrate(self, plan: PlanRecord) -> None:
        """Write the first line of a journal of an older version anew; the others stay as they are."""
        first, *others = self._complete_lines()
        if json.loads(first)["schema"] == _SCHEMA:
            return
        temporary = self.file.with_name(self.file.name + ".tmp")
        record = {"type": "plan", "schema": _SCHEMA, **plan.to_dict()}
        with temporary.open("wb") as stream:
            stream.write(json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n" + b"".join(others))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self.file)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        end = sum(len(complete) for complete in self._complete_lines())
        is_new = not self.file.exists()
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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


def _plan(file: Path, line: bytes) -> PlanRecord:
    content = _parsed(file, 1, line)
    if content.get("type") != "plan":
        raise JournalError(f"{file}, line 1: must describe the plan, got a line of type {content.get('type')!r}.")
    if content.get("schema") not in (1, _SCHEMA):
        raise JournalError(
            f"{file} has schema {content.get('schema')!r}, this version reads 1 and {_SCHEMA}. "
            "Go on with the version that wrote it, or choose another directory."
        )
    try:
        if content["schema"] == 1:
            content = {**content, "knee": {**asdict(KneeRule()), **content["knee"]}, "search": dict(SEARCH_DEFAULTS)}
        return PlanRecord.from_dict(content)
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{file}, line 1: does not describe a plan ({error!r}).") from error


def _outcome(file: Path, number: int, content: Mapping[str, Any]) -> EdgeOutcome:
    if content.get("type") not in ("edge", "weights"):
        raise JournalError(
            f"{file}, line {number}: must describe an edge, got a line of type {content.get('type')!r}."
        )
    try:
        content = {"standard_error": None, **content}  # schema 1 had none
        fields = {key: content[key] for key in EdgeOutcome.__dataclass_fields__}
        edge = Edge(*fields["edge"])
        curve = tuple((float(epoch), value) for epoch, value in fields["curve"])
        return EdgeOutcome(**{**fields, "edge": edge, "curve": curve})
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"{file}, line {number}: does not describe a finished edge ({error!r}).") from error


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise JournalError(f"{file}, line {number}: is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise JournalError(f"{file}, line {number}: must be a JSON object, got {content!r}.")
    return content


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
