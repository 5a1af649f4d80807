"""How far a search and its running edges have come, in small files of its folder, for whoever looks on from elsewhere.

They say nothing that a search depends on: a lost or damaged one is passed over, and written anew with the next epoch.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from lightning_opplan.files import write_text
from lightning_opplan.planning.graph import Edge

__all__ = ["EDGE_FILE", "EdgeProgress", "SearchState", "SearchStatus", "edges_under_way"]

EDGE_FILE: Final = "progress.json"
"""Name of an edge's file, in the edge's folder."""

_SEARCH_FILE: Final = "status.json"

SearchState = Literal["running", "finished", "ended"]
"""``"ended"``: by a budget, an error or an interruption, before all was done."""


@dataclass(frozen=True, kw_only=True)
class EdgeProgress:
    """How far an edge has come that runs, or that was interrupted.

    Attributes:
        edge: The edge.
        plan: Fingerprint of its plan: what another one has left in the folder is no use.
        epoch: Epoch of the last validation; 0 before the first.
        value: Value of that.
        knee: The knee as it was seen then.
        curve: Epoch and value of every validation.
        until: The epoch after which it pauses, if it is to.
        seconds: Wall time, over all attempts.
        devices: Devices that it is trained on.
        updated: When this was written, in seconds since 1970.
        is_running: Whether it ran then; otherwise it was interrupted.
    """

    edge: Edge
    plan: str = ""
    epoch: float = 0
    value: float | None = None
    knee: float | None = None
    curve: tuple[tuple[float, float | None], ...] = ()
    until: int | None = None
    seconds: float = 0.0
    devices: int = 1
    updated: float = 0.0
    is_running: bool = True

    def write(self, folder: Path) -> None:
        """Write it to the folder of the edge; on a full disk it is left as it was: no training is to fail over it."""
        with suppress(OSError):
            _write(folder / EDGE_FILE, self)

    def interrupted(self) -> Self:
        """Return the same of an edge that does not run any more."""
        return replace(self, is_running=False)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what was written last; ``None`` if there is nothing, or nothing that can be read."""
        content = _content(cls, folder / EDGE_FILE)
        try:
            edge = Edge(*map(str, content["edge"]))
            curve = tuple((float(epoch), None if value is None else float(value)) for epoch, value in content["curve"])
            return cls(**{**content, "edge": edge, "curve": curve})
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """Whether a search runs, and on how much.

    Attributes:
        state: Whether it runs, has finished, or has ended before.
        num_workers: Edges at a time.
        max_gpu_hours: Hours, times devices, after which it starts no further edge.
        updated: When this was written, in seconds since 1970.
    """

    state: SearchState
    num_workers: int = 1
    max_gpu_hours: float | None = None
    updated: float = 0.0

    def write(self, dirpath: Path) -> None:
        """Write it to the folder of the search."""
        _write(dirpath / _SEARCH_FILE, self)

    @classmethod
    def read(cls, dirpath: Path) -> Self | None:
        """Return what was written last; ``None`` if there is nothing, or nothing that can be read."""
        content = _content(cls, dirpath / _SEARCH_FILE)
        try:
            found = cls(**content)
        except TypeError:
            return None
        return found if found.state in get_args(SearchState) else None


def edges_under_way(dirpath: Path, plan: str) -> dict[Edge, EdgeProgress]:
    """Return how far the edges of a search have come that run or were interrupted.

    Args:
        dirpath: The folder of the search.
        plan: Fingerprint of the plan.
    """
    found = {}
    with suppress(OSError), os.scandir(dirpath / "edges") as entries:
        for entry in entries:
            progress = EdgeProgress.read(Path(entry.path)) if entry.is_dir() else None
            if progress is not None and progress.plan == plan:
                found[progress.edge] = progress
    return found


def _write(file: Path, content: EdgeProgress | SearchStatus) -> None:
    write_text(file, json.dumps(vars(content)), sync=False)


def _content(cls: type, file: Path) -> dict[str, Any]:
    """The fields of a dataclass in a file, as far as they are there."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, Mapping):
        return {}
    return {each.name: content[each.name] for each in fields(cls) if each.name in content}
