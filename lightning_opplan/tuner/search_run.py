"""The loop of a search: start what can run, take in what has finished, end what is left."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import cloudpickle
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.search import EdgeOutcome, best_so_far, edges_to_run, winning_edges
from lightning_opplan.reporting import SearchDisplay
from lightning_opplan.tuner.devices import Placement
from lightning_opplan.tuner.disk import prune_weights
from lightning_opplan.tuner.edge import EdgeJob, run_edge
from lightning_opplan.tuner.executors import EdgeFuture, isolated
from lightning_opplan.tuner.ranks import Ranks
from lightning_opplan.tuner.recipe import Recipe
from lightning_opplan.tuner.worker import EdgeFailure, read_progress, work

__all__ = ["EdgeError", "Search", "SearchRun", "ended_with_search", "terminable"]

_POLL: Final = 0.02  # seconds between looks at what runs elsewhere


class EdgeError(RuntimeError):
    """The training of an edge failed in another process."""


class Search(Protocol):
    """What the loop needs of a `PathSearchTuner`; its arguments are described there."""

    graph: TransitionGraph
    recipe: Recipe
    mode: Mode
    beam: int
    racing: bool
    max_gpu_hours: float | None

    def job(self, edge: Edge, outcomes: Mapping[Edge, EdgeOutcome], plan: str, placement: Placement) -> EdgeJob:
        """Describe an edge whose parent is settled."""

    def folder(self, edge: Edge) -> Path:
        """Return the folder of an edge."""

    def has_intact_weights(self, outcome: EdgeOutcome) -> bool:
        """Whether the weights of an edge are there as they were written."""


class SearchRun:
    """The loop of a search: start what can run, take in what has finished."""

    def __init__(
        self,
        tuner: Search,
        placement: Placement,
        ranks: Ranks,
        journal: Journal,
        plan: str,
        display: SearchDisplay,
        outcomes: Mapping[Edge, EdgeOutcome],
    ) -> None:
        self.tuner, self.placement, self.ranks, self.journal = tuner, placement, ranks, journal
        self.plan, self.display = plan, display
        self.outcomes = dict(outcomes)
        self.running: dict[Edge, EdgeFuture] = {}
        self.deaths: Counter[Edge] = Counter()
        self.reached: dict[Edge, float] = {}

    def to_the_end(self) -> dict[Edge, EdgeOutcome]:
        """Run until no edge can or may be started, and none runs."""
        self.ranks.decide(self._prune)
        while True:
            while len(self.running) < self.placement.num_workers:
                edge = self.ranks.decide(self._next)
                if edge is None:
                    break
                self._start(edge)
            if not self.running:
                return self.outcomes
            self._take_in(self._first_done())

    def _next(self) -> Edge | None:
        """The most urgent edge that can start now: one to train, or one whose lost weights a further edge needs."""
        tuner = self.tuner
        ready = edges_to_run(
            tuner.graph, self.outcomes, self.running, mode=tuner.mode, beam=tuner.beam, racing=tuner.racing
        )
        if not self._may_spend():
            ready = ()
        for edge in ready:
            first = self._first_lost(edge)
            if (first or edge) not in self.running:
                return first or edge
        # The result's weights, at the end.
        if not ready and not self.running:
            return self._lost_of_result()
        return None

    def _may_spend(self) -> bool:
        limit = self.tuner.max_gpu_hours
        if limit is None:
            return True
        spent = sum(o.seconds * (o.details or {}).get("devices", 1) for o in self.outcomes.values())
        return bool(spent < 3600 * limit)

    def _first_lost(self, edge: Edge) -> Edge | None:
        """The edge nearest to the start whose weights have to be trained again before `edge` can run."""
        if edge.parent == START:
            return None
        tuner = self.tuner
        parent = winning_edges(tuner.graph, self.outcomes, tuner.mode, tuner.beam)[edge.parent]
        if tuner.has_intact_weights(self.outcomes[parent]):
            return None
        return self._first_lost(parent) or parent

    def _lost_of_result(self) -> Edge | None:
        tuner = self.tuner
        final = best_so_far(tuner.graph, self.outcomes, tuner.mode, tuner.beam)
        if final is None:
            return None
        last = winning_edges(tuner.graph, self.outcomes, tuner.mode, tuner.beam, partial=True)[final]
        if tuner.has_intact_weights(self.outcomes[last]):
            return None
        return self._first_lost(last) or last

    def _start(self, edge: Edge) -> None:
        job = self.tuner.job(edge, self.outcomes, self.plan, self.placement)
        if edge in self.outcomes:
            rank_zero_warn(f"The weights of {edge} are damaged or gone; the edge is trained again from its parent.")
            self.ranks.decide(lambda: Path(job.folder, "outcome.json").unlink(missing_ok=True))
        self.display.start(edge)
        self._submit(job)

    def _submit(self, job: EdgeJob) -> None:
        if self.placement.is_here:
            listener = self.display.epoch
            future: EdgeFuture = self.placement.executor.submit(run_edge, job, self.tuner.recipe, self.ranks, listener)
        else:
            function = (work,) if self.placement.is_isolated else (isolated, work)
            future = self.placement.executor.submit(*function, job, cloudpickle.dumps(self.tuner.recipe))
        self.running[job.edge] = future

    def _first_done(self) -> Edge:
        while True:
            for edge, future in self.running.items():
                if future.done():
                    return edge
            time.sleep(_POLL)
            for edge in self.running:
                self.display.progress(edge, read_progress(self.tuner.folder(edge)))

    def _take_in(self, edge: Edge) -> None:
        """Record what an edge came to, start it again if its process died, or raise its error."""
        future = self.running.pop(edge)
        folder = self.tuner.folder(edge)
        try:
            outcome = future.result()
        except Exception as error:
            if self.placement.is_here:
                raise
            reached = (read_progress(folder) or (0.0,))[0]
            if reached > self.reached.get(edge, 0.0):  # it came further than before: a job that was cut off, perhaps
                self.deaths[edge] = 0
            self.reached[edge] = reached
            self.deaths[edge] += 1
            reason = " ".join(str(error).split()) or type(error).__name__
            if self.deaths[edge] > self.placement.max_restarts:
                raise EdgeError(
                    f"{edge}: {reason} This was try {self.deaths[edge]}; see {folder / 'worker.log'}."
                ) from error
            self.display.say(
                f"{edge}: {reason} It is started again ({self.deaths[edge]} of {self.placement.max_restarts})."
            )
            self._submit(self.tuner.job(edge, self.outcomes, self.plan, self.placement))
            return
        if isinstance(outcome, EdgeFailure):
            log = folder / "worker.log"
            if folder.is_dir():
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(outcome.trace)
            where = "" if outcome.is_expected else f" The whole traceback is in {log}."
            raise EdgeError(f"{edge}: {outcome.sentence}{where}")
        if edge in self.outcomes and outcome.weights is None:
            raise EdgeError(
                f"{edge}: trained again for its lost weights, it diverged. Start the search in a new folder."
            )
        if edge in self.outcomes:
            self.ranks.decide(lambda: self.journal.append_weights(outcome))
            details = {**(self.outcomes[edge].details or {}), "sha256": (outcome.details or {}).get("sha256")}
            self.outcomes[edge] = replace(self.outcomes[edge], details=details)
        else:
            self.ranks.decide(lambda: self.journal.append(outcome))
            self.outcomes[edge] = outcome
        self.ranks.decide(self._prune)
        self.display.end(self.outcomes[edge])

    def _prune(self) -> None:
        """Delete the weights of edges that can no longer be chosen."""
        tuner = self.tuner
        kept = set(winning_edges(tuner.graph, self.outcomes, tuner.mode, tuner.beam, partial=True).values())
        prune_weights(tuner.folder(edge) for edge in self.outcomes if edge not in kept)


@contextmanager
def ended_with_search(placement: Placement) -> Iterator[None]:
    """End what runs elsewhere, whatever ends the search."""
    try:
        yield
    except BaseException:
        placement.shutdown(cancel=True)
        raise
    else:
        placement.shutdown(cancel=False)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the search in order; within a fit in this process Lightning does so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SIGTERMException(128 + signal.SIGTERM)  # a script's exit status, as a shell reports it

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
