"""Run a search: in a folder of its own, on executors, with a journal, a report, and a result."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cloudpickle
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import UNMEASURED, Journal, PlanRecord
from lightning_opplan.planning.options import SearchOptions
from lightning_opplan.planning.outcome import EdgeOutcome, Work
from lightning_opplan.planning.path import OptimizationPath, plain_setting
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.schedule import ANNEAL, annealed_state
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting import LiveReport, SearchDisplay, write_report
from lightning_opplan.reporting.tested import results_file
from lightning_opplan.tuner.disk import disk_sentence, peak_disk, weights_size
from lightning_opplan.tuner.doubts import warnings_of
from lightning_opplan.tuner.edges.edge import EpochListener, run_edge
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.job import ArmJob, EdgeJob, Training
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.edges.seeding import derived_seed
from lightning_opplan.tuner.edges.store import EdgeFolders
from lightning_opplan.tuner.edges.training import notices
from lightning_opplan.tuner.ensemble import Ensemble, EnsembleMember
from lightning_opplan.tuner.executors.lock import FileLock
from lightning_opplan.tuner.executors.placement import Placement, place, runs_here
from lightning_opplan.tuner.executors.processes import (
    EdgeFuture,
    ProcessExecutor,
    isolated,
    refuse_unguarded,
)
from lightning_opplan.tuner.executors.worker import EdgeFailure, work
from lightning_opplan.tuner.inputs import check_inputs
from lightning_opplan.tuner.loop import EdgeError, SearchLoop
from lightning_opplan.tuner.search_log import SearchLog, edge_run
from lightning_opplan.tuner.shapes import check_shapes
from lightning_opplan.tuner.spec import SearchError, SearchResult, SearchSpec, result_of

__all__ = ["run_search"]


def run_search(spec: SearchSpec) -> SearchResult:
    """Run the edges that have not finished yet, and return the best path; see `PathSearchTuner.search`."""
    refuse_unguarded()
    with hushed(), ExitStack() as stack:
        spec.recipe.check(plain_setting(spec.graph.settings[state]) for state in spec.graph.states[1:])
        check_shapes(spec.recipe, spec.graph)
        check_inputs(spec.recipe, spec.graph)
        here = runs_here(spec.executor)
        if not here:
            stack.enter_context(_terminable())
        # The first Trainer only starts the processes, so that even the first decision is the same for all.
        trainer = spec.recipe.build_trainer(str(spec.dirpath)) if here else None
        ranks = Ranks(trainer)
        ranks.decide(lambda: _lock(spec.dirpath, stack))
        journal, record = Journal.of(spec.dirpath), spec.record
        search = record.search(ranks.decide(lambda: _opened(journal, record, spec.options)))
        placement = place(spec.executor, spec.recipe, search, spec.dirpath)
        stack.enter_context(_ended_with_search(placement))
        if isinstance(placement.executor, ProcessExecutor):
            placement.executor.check()
        is_ranked = spec.kind not in UNMEASURED
        display = SearchDisplay(search, enabled=spec.options.progress and ranks.is_first, is_ranked=is_ranked)
        folders = EdgeFolders(spec.dirpath, search.edges)
        trainer = trainer or placement.trainer
        for sentence in [] if trainer is None or spec.stages else notices(trainer):
            rank_zero_warn(sentence)
        _announce(spec, search, display, placement)
        budget = spec.options.max_gpu_hours
        loggers = [] if trainer is None or search.is_complete else trainer.loggers
        log = SearchLog(
            loggers, mode=spec.mode, kind=spec.kind, folder=spec.dirpath, has_arms=isinstance(search, Halving)
        )
        if ranks.is_first:
            stack.enter_context(log)
        ranks.barrier()  # no edge begins before the run that it belongs to
        report = LiveReport(
            spec.dirpath, enabled=ranks.is_first, num_workers=placement.num_workers, max_gpu_hours=budget
        )
        stack.enter_context(report)

        def tell(edge: Edge, progress: EdgeProgress) -> None:
            display.epoch(edge, progress)
            report.renew()

        loop = SearchLoop(
            search,
            _Runner(spec, search, folders, placement, ranks, record.fingerprint, tell),
            folders=folders,
            journal=journal,
            display=display,
            report=report,
            num_workers=placement.num_workers,
            max_restarts=None if placement.is_here else placement.max_restarts,
            max_device_seconds=None if budget is None else 3600 * budget,
            decide=ranks.decide,
            on_edge_end=spec.on_edge_end,
            on_outcome=lambda: log.log(search.known),
            warn=warnings_of(spec),
        )
        with display:
            loop.to_the_end()
        return _result(spec, search, folders, ranks, display, report)


class _Runner:
    """Starts a piece of work where its placement says."""

    def __init__(
        self,
        spec: SearchSpec,
        search: Search | Halving,
        folders: EdgeFolders,
        placement: Placement,
        ranks: Ranks,
        plan: str,
        tell: EpochListener,
    ) -> None:
        self.spec, self.search, self.folders, self.placement = spec, search, folders, placement
        self.ranks, self.plan, self.tell = ranks, plan, tell

    def __call__(self, piece: Work) -> EdgeFuture:
        job, recipe, placement = self.job(piece), self.spec.recipe, self.placement
        if placement.is_here:
            return placement.executor.submit(run_edge, job, recipe, self.ranks, self.tell)
        function = (work,) if placement.is_isolated else (isolated, work)
        return _Elsewhere(job, placement.executor.submit(*function, job, cloudpickle.dumps(recipe)))

    def job(self, piece: Work) -> EdgeJob:
        """Describe an edge whose parent is settled."""
        spec, edge, parent = self.spec, piece.edge, self.search.parent(piece.edge)
        setting = spec.graph.settings[edge.child]
        stage = spec.stages.get(edge.child)
        if setting.get(ANNEAL):
            before = sum(self.search.outcomes[each].knee_epoch for each in self.search.way(edge.parent))
            stage = annealed_state(setting[ANNEAL]).stage(before)
        training = Training(
            setting=plain_setting(setting),
            weights=None if parent is None else str(self._weights(parent, piece.since)),
            seed=derived_seed(spec.seed, *edge),
            devices=self.placement.devices,
            accumulate=self.placement.accumulate,
            num_threads=spec.options.num_threads or self.placement.num_threads,
            averaging=spec.options.averaging or spec.arms is not None,
            folder=self.folders[edge],
            run=edge_run(edge, spec.kind, spec.dirpath),
        )
        return EdgeJob(
            edge=edge,
            training=training,
            until=piece.until,
            start_value=spec.options.start_value,
            monitor=spec.monitor,
            mode=spec.mode,
            rule=spec.options.rule_of(None if parent is None else spec.graph.settings[parent.child], setting),
            rival=self.search.rival(edge) if isinstance(self.search, Search) else None,
            value=spec.options.value,
            max_epochs=spec.options.max_epochs_per_edge,
            stage=stage,
            arm=None if spec.arms is None else self._arm(piece),
            plan=self.plan,
        )

    def _arm(self, piece: Work) -> ArmJob:
        budget = self.spec.options.budget
        return ArmJob(
            since=piece.since,
            measures_chance=piece.edge == self.search.edges[0],
            keeps_snapshots=budget is not None and budget.moves > 0,
        )

    def _weights(self, parent: Edge, since: int | None) -> Path:
        folder = self.folders[parent]
        return folder.weights if since is None else folder.snapshot(since)


class _Elsewhere:
    """The future of an edge in another process, whose failure becomes an `EdgeError`."""

    def __init__(self, job: EdgeJob, future: EdgeFuture) -> None:
        self.job, self.future = job, future

    def done(self) -> bool:
        return self.future.done()

    def result(self) -> EdgeOutcome:
        outcome: EdgeOutcome | EdgeFailure = self.future.result()
        if not isinstance(outcome, EdgeFailure):
            return outcome
        log = self.job.folder.log
        if log.parent.is_dir():
            with log.open("a", encoding="utf-8") as stream:
                stream.write(outcome.trace)
        where = "" if outcome.is_expected else f" The whole traceback is in {log}."
        raise EdgeError(f"{self.job.edge}: {outcome.sentence}{where}")


def _announce(spec: SearchSpec, search: Search | Halving, display: SearchDisplay, placement: Placement) -> None:
    """Say where edges run and what room they take, before the first one."""
    if not spec.options.progress or len(search.outcomes) == len(search.edges):
        return
    if placement.sentence:
        display.say(placement.sentence)
    if not search.outcomes:
        # On all ranks: a model may wait for the others while it is built.
        setting = plain_setting(spec.graph.settings[spec.graph.states[1]])
        weights = weights_size(spec.recipe, setting)
        if weights is not None:
            peak = peak_disk(weights, search, num_running=placement.num_workers)
            display.say(disk_sentence(peak, spec.dirpath))


def _opened(journal: Journal, record: PlanRecord, options: SearchOptions) -> tuple[EdgeOutcome, ...]:
    """What is known in a folder, which has to be that of this plan."""

    def set_aside(difference: str) -> None:
        """Keep what an edge of another plan has trained without an end."""
        edges = journal.file.parent / "edges"
        if any(edges.glob("*/resume/*.ckpt")):
            number = 1
            while (kept := edges.with_name(f"edges-before-{number}")).exists():
                number += 1
            edges.rename(kept)
            rank_zero_warn(
                f"The plan has changed ({difference}), and none of its edges had finished: it is begun anew. What "
                f"they had trained is kept in {kept}."
            )

    search = journal.open(record, allow_changed_code=options.allow_changed_code, replacing_plan=set_aside)
    return search.known


def _lock(folder: Path, stack: ExitStack) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(FileLock(folder / "lock"))


def _result(
    spec: SearchSpec,
    search: Search | Halving,
    folders: EdgeFolders,
    ranks: Ranks,
    display: SearchDisplay,
    report: LiveReport,
) -> SearchResult:
    path = search.path(monitor=spec.monitor)
    budget = spec.options.max_gpu_hours
    if path is None and not search.known:
        raise SearchError(f"`max_gpu_hours` ({budget!r}) ended before the first edge had finished.")
    if path is None:
        raise SearchError(
            f"Every training diverged: no final state has a finite {spec.monitor!r}. Start with a lower learning rate."
        )
    last: Edge = search.leaders[path.steps[-1].state]
    ranks.decide(lambda: _publish(spec, path, folders[last].weights))
    _report(spec, search, report)
    display.finish(path if spec.kind == "plan" else None)
    if not search.is_complete and budget is not None:
        display.say(
            f"The budget of {budget:g} GPU-hours is spent: {len(search.outcomes)} of {len(search.edges)} edges have "
            "finished, and the path is the best of them. The same command with a larger budget goes on."
        )
    ranks.barrier()
    return result_of(spec.record, search, path, folders)


def _publish(spec: SearchSpec, path: OptimizationPath, weights: Path) -> None:
    if spec.kind == "plan":  # the states of chains are not those of the plan
        path.save(spec.dirpath / "path.yaml")
    if spec.kind in ("plan", "grid"):  # to be tested beside what is delivered
        setting = plain_setting(path.steps[-1].setting)
        member = EnsembleMember(name=path.steps[-1].state, weights=weights, setting=setting)
        file = spec.dirpath / "ensemble.yaml"
        tested = results_file(file)
        if tested.is_file() and weights.stat().st_mtime > tested.stat().st_mtime:
            tested.unlink()  # it was another network
        Ensemble(members=(member,)).save(file)


def _report(spec: SearchSpec, search: Search | Halving, report: LiveReport) -> None:
    """Write the report as it stays, and that of the plan, which compares it with what else was trained."""
    report.finish(is_complete=search.is_complete)
    plan = spec.dirpath.parent
    if spec.kind != "plan" and report.enabled and Journal.of(plan).file.is_file():
        report.attempt(lambda: write_report(plan), plan)


@contextmanager
def _ended_with_search(placement: Placement) -> Iterator[None]:
    """End what runs elsewhere, whatever ends the search."""
    try:
        yield
    except BaseException:
        placement.shutdown(cancel=True)
        raise
    else:
        placement.shutdown(cancel=False)


@contextmanager
def _terminable() -> Iterator[None]:
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
