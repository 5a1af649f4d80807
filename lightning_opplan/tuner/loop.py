"""The loop of a search: start what can run, take in what has finished. It knows nothing of how an edge is trained."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.messages import OpplanError
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.outcome import EdgeOutcome, Work
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting import LiveReport, SearchDisplay
from lightning_opplan.tuner.edges.store import EdgeFolders
from lightning_opplan.tuner.executors.processes import EdgeFuture

__all__ = ["EdgeError", "EdgeListener", "SearchLoop"]

EdgeListener = Callable[[Edge, EdgeOutcome], Any]
"""Called with every edge that has finished, and what it came to."""

_POLL: Final = 0.02  # seconds between looks at what runs elsewhere


class EdgeError(OpplanError, RuntimeError):
    """The training of an edge failed in another process."""


class SearchLoop:
    """Do what a search asks for until it asks for nothing more.

    Args:
        search: The search; it is told every outcome.
        run: Starts a piece of work, and returns the future of its `EdgeOutcome`.
        folders: Where edges leave their weights, and say how far they have come.
        journal: Where outcomes are recorded before the search is told.
        display: Shows what happens.
        report: The report, to be renewed as something happens.
        num_workers: Pieces of work at a time.
        max_restarts: How often an edge is started again whose process died. ``None`` where there are no processes:
            an error ends the search as it is.
        max_device_seconds: Start nothing further once so many seconds, times devices, have been spent.
        decide: Calls a function for all processes of the search alike.
        on_edge_end: Is told of every edge that has finished.
        on_outcome: Is called on the first rank whenever the search was told of an outcome.
        warn: Says what is to be said of one.
    """

    def __init__(
        self,
        search: Search | Halving,
        run: Callable[[Work], EdgeFuture],
        *,
        folders: EdgeFolders,
        journal: Journal,
        display: SearchDisplay,
        report: LiveReport,
        num_workers: int = 1,
        max_restarts: int | None = None,
        max_device_seconds: float | None = None,
        decide: Callable[[Callable[[], Any]], Any] = lambda decision: decision(),
        on_edge_end: EdgeListener | None = None,
        on_outcome: Callable[[], None] | None = None,
        warn: Callable[[EdgeOutcome], str | None] | None = None,
    ) -> None:
        self.search, self.run, self.folders, self.journal, self.display = search, run, folders, journal, display
        self.report, self.num_workers, self.max_restarts = report, num_workers, max_restarts
        self.max_device_seconds = max_device_seconds
        self.decide, self.on_edge_end, self.on_outcome, self.warn = decide, on_edge_end, on_outcome, warn
        self._running: dict[Edge, tuple[Work, EdgeFuture]] = {}
        self._deaths: Counter[Edge] = Counter()
        self._reached: dict[Edge, float] = {}
        self._dropped: set[Edge] = set()

    def to_the_end(self) -> None:
        """Run until nothing can or may be started, and nothing runs."""
        self.decide(self._prune)
        while True:
            while len(self._running) < self.num_workers:
                work = self.decide(self._next)
                if work is None:
                    break
                self._start(work)
            if not self._running:
                return
            self._take_in(self._first_done())

    def _next(self) -> Work | None:
        """The most urgent work that can start now: a new one, or an edge whose lost weights a further one needs."""
        waiting: list[Edge] = []
        while self._may_spend():
            work = self.search.ask([*self._running, *waiting])
            if work is None:
                break
            lost = self._first_lost(work.edge)
            if lost is None:
                return work
            if lost not in self._running:
                return self._again(lost)
            waiting.append(work.edge)
        # The result's weights, at the end.
        return None if self._running else self._lost_of_result()

    def _may_spend(self) -> bool:
        if self.max_device_seconds is None:
            return True
        return sum(outcome.device_seconds for outcome in self.search.known) < self.max_device_seconds

    def _first_lost(self, edge: Edge) -> Edge | None:
        """The edge nearest to the start whose weights have to be trained again before `edge` can run."""
        parent = self.search.parent(edge)
        if parent is None or self._has_weights(parent):
            return None
        return self._first_lost(parent) or parent

    def _has_weights(self, edge: Edge) -> bool:
        outcome = self.search.outcome(edge)
        return outcome is not None and self.folders.has_weights(outcome)

    def _lost_of_result(self) -> Work | None:
        final = self.search.best_so_far
        if final is None:
            return None
        last = self.search.leaders[final]
        return None if self._has_weights(last) else self._again(self._first_lost(last) or last)

    def _again(self, edge: Edge) -> Work:
        """The training of an edge as far as it had come."""
        known = self.search.outcome(edge)
        if known is None or not (known.is_paused or isinstance(self.search, Halving)):
            return Work(edge=edge)
        return Work(edge=edge, until=int(known.epochs_run), since=known.since)

    def _start(self, work: Work) -> None:
        edge = work.edge
        if edge in self.search.outcomes:
            rank_zero_warn(f"The weights of {edge} are damaged or gone; the edge is trained again from its parent.")
            self.decide(lambda: self.folders[edge].forget())
        self.display.start(edge)
        self._running[edge] = work, self.run(work)
        self.report.renew()

    def _first_done(self) -> Edge:
        while True:
            for edge, (_, future) in self._running.items():
                if future.done():
                    return edge
            time.sleep(_POLL)
            for edge in self._running:
                self.display.progress(edge, self.folders[edge].progress())
            self.report.renew()

    def _take_in(self, edge: Edge) -> None:
        """Record what an edge came to, start it again if its process died, or raise its error."""
        work, future = self._running.pop(edge)
        try:
            outcome: EdgeOutcome = future.result()
        except EdgeError:
            raise
        except Exception as error:
            if self.max_restarts is None:
                raise
            self._count_death(edge, error, self.max_restarts)
            self._running[edge] = work, self.run(work)
            return
        known = self.search.outcomes.get(edge)
        if known is None:
            self.decide(lambda: self.journal.append(outcome))
        elif outcome.weights is None:
            raise EdgeError(
                f"{edge}: trained again for its lost weights, it diverged. Start the search in a new folder."
            )
        else:
            self.decide(lambda: self.journal.append_weights(outcome))
            self._dropped.discard(edge)
            outcome = replace(known, sha256=outcome.sha256)
        self.search.tell(outcome)
        self.decide(self._prune)
        self.display.end(outcome)
        if self.on_outcome is not None:
            self.decide(self.on_outcome)
        self.report.renew()
        warning = self.warn(outcome) if known is None and self.warn is not None else None
        if warning is not None:
            rank_zero_warn(warning)
        if self.on_edge_end is not None and known is None and not outcome.is_paused:
            self.decide(lambda: self._tell_user(outcome))

    def _tell_user(self, outcome: EdgeOutcome) -> None:
        assert self.on_edge_end is not None
        self.on_edge_end(outcome.edge, outcome)

    def _count_death(self, edge: Edge, error: Exception, limit: int) -> None:
        progress = self.folders[edge].progress()
        reached = 0.0 if progress is None else progress.epoch
        if reached > self._reached.get(edge, 0.0):  # it came further than before: a job that was cut off, perhaps
            self._deaths[edge] = 0
        self._reached[edge] = reached
        self._deaths[edge] += 1
        reason = " ".join(str(error).split()) or type(error).__name__
        if self._deaths[edge] > limit:
            raise EdgeError(
                f"{edge}: {reason} This was try {self._deaths[edge]}; see {self.folders[edge].log}."
            ) from error
        self.display.say(f"{edge}: {reason} It is started again ({self._deaths[edge]} of {limit}).")

    def _prune(self) -> None:
        """Delete the weights of edges that can no longer be chosen."""
        kept = set(self.search.leaders.values())
        lost = [edge for edge in self.search.outcomes if edge not in kept and edge not in self._dropped]
        self.folders.drop_weights(lost)
        self._dropped.update(lost)
