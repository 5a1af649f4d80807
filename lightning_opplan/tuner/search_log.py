"""What is logged of a search as a whole: one run beside those of its edges."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan._lightning import finish_loggers
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import UNMEASURED, Journal
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.tuner.edges.runs import RunName, log_names, name_runs

__all__ = ["SearchLog", "edge_run", "family_of"]


def family_of(folder: Path) -> str:
    """Name of the family of runs in a folder: that of the plan, also for what lies within the plan's folder."""
    return folder.parent.name if Journal.of(folder.parent).file.is_file() else folder.name


def edge_run(edge: Edge, kind: str, folder: Path) -> RunName:
    """Say what an edge is called in loggers.

    Args:
        edge: The edge.
        kind: What is searched, as `SearchSpec.kind`.
        folder: Folder of the search.
    """
    return RunName(
        group=family_of(folder),
        name=str(edge) if kind == "plan" else f"{kind}: {edge.child}",
        tags={"kind": kind, "parent": edge.parent, "state": edge.child},
        family=folder,
    )


class SearchLog:
    """Logs how a search is getting on, over the epochs that it has trained; on the first rank.

    A context manager: the run is open within it. Where a logger fails, that is said, and the search goes on without.

    Args:
        loggers: Loggers of a Trainer that trains nothing.
        mode: Whether a higher or a lower value is better.
        kind: What is searched.
        folder: Folder of the search.
        has_arms: Whether arms are searched, which end paused.
    """

    def __init__(
        self, loggers: Sequence[Logger], *, mode: Mode, kind: str, folder: Path, has_arms: bool = False
    ) -> None:
        self.loggers, self.mode, self.folder = list(loggers), mode, folder
        self.kind, self.has_arms = kind, has_arms
        family = family_of(folder)
        self.run = RunName(group=family, name=family if kind == "plan" else kind, tags={"kind": f"{kind}, as a whole"})

    def __enter__(self) -> "SearchLog":
        with self._open():
            log_names(self.loggers, self.run, self.folder)
        return self

    def log(self, outcomes: Sequence[EdgeOutcome]) -> None:
        """Log what is known so far."""
        known = [] if self.kind in UNMEASURED else outcomes
        values = [outcome.value for outcome in known if outcome.value is not None]
        figures = {
            "search/edges": float(len(outcomes) if self.has_arms else sum(not each.is_paused for each in outcomes)),
            "search/epochs": float(sum(outcome.epochs_run for outcome in outcomes)),
            "search/device_hours": sum(outcome.device_seconds for outcome in outcomes) / 3600,
        }
        if values:
            figures["search/best"] = max(values) if self.mode == "max" else min(values)
        with self._open():
            for logger in self.loggers:
                logger.log_metrics(figures, step=round(figures["search/epochs"]))
                logger.save()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open():
            for logger in self.loggers:
                logger.finalize("success" if kind is None else "failed")

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Open the run, and no longer than it takes: the loggers of edges in this process would write into it."""
        try:
            name_runs(self.loggers, self.run, self.folder)
        except Exception as error:
            self._give_up(error)
        try:
            yield
            finish_loggers(self.loggers)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.loggers = []
        rank_zero_warn(f"The search as a whole is no longer logged: {' '.join(str(error).split())}")
