"""Search for the best path through a transition graph."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.hand_tuned import FixedStage
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.knee import KneeRule, ValueKind
from lightning_opplan.planning.messages import checked_choice
from lightning_opplan.planning.options import PRESETS, ExecutorOptions
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.search import (
    EdgeOutcome,
    best_final,
    best_so_far,
    rival_of,
    runnable_edges,
    searched_edges,
    winning_edges,
)
from lightning_opplan.reporting import SearchDisplay, write_report
from lightning_opplan.tuner.devices import Placement, place, runs_here
from lightning_opplan.tuner.disk import disk_sentence, peak_disk, weights_size
from lightning_opplan.tuner.edge import EdgeJob, file_checksum, hushed
from lightning_opplan.tuner.executors import EdgeExecutor
from lightning_opplan.tuner.lock import FileLock
from lightning_opplan.tuner.ranks import Ranks
from lightning_opplan.tuner.recipe import FactoryRecipe, Recipe
from lightning_opplan.tuner.search_run import EdgeError, SearchRun, ended_with_search, terminable

__all__ = ["EdgeError", "PathSearchTuner", "SearchResult"]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        path: The best path.
        outcomes: All edges that have finished.
        weights: File of the weights at the end of the path, as trained in the search.
        is_complete: Whether all edges were run; otherwise the path is the best of those that were, as far as the
            budget went.
    """

    path: OptimizationPath
    outcomes: Mapping[Edge, EdgeOutcome]
    weights: Path
    is_complete: bool = True


class PathSearchTuner:
    """Find the order of settings, and the epochs for each, that train a model best.

    Every edge of the graph is a training of its own: a fresh Trainer, model and data, the parent state's weights, the
    child state's setting, stopped at the knee of its validation curve. Dynamic programming takes the best parent of
    every state and reads the best path off the final state.

    Args:
        graph: States and the edges between them.
        model: Function or class that returns a new LightningModule; a state's ``model.*`` are its keyword arguments.
        data: The same for the LightningDataModule and ``data.*``. Validation should not depend on the state.
        trainer: The same for the Trainer and ``trainer.*``; must pass on `callbacks` and `default_root_dir`.
        monitor: Metric that validation logs.
        mode: Whether a higher or a lower value of it is better.
        dirpath: Folder of the search, for its journal, weights, logs and results; seen by all machines it runs on.
        knee: Arguments of `KneeStopping`, such as ``{"patience": 10}``.
        start_value: Value of an untrained model (y₀ of the edges from the start). By default it is measured; with
            ``mode="max"`` a value above 0 then counts as 0, what the paper takes an untrained classifier to be worth.
        seed: Seed of everything random in the search.
        progress: Show the table of edges while the search runs.
        recipe: In place of `model`, `data` and `trainer`: makes experiments in its own way.
        executor: Where edges run: ``"in_process"``, ``"processes"``, ``"ray"``, ``"dask"``, ``"slurm"``, the
            `ExecutorOptions` of one of them, or an object whose ``submit`` returns futures.
        preset: ``"paper"`` or ``"fast"``: racing of the edges into a state, and the stop by confidence.
        value: Value of an edge: that of the fitted curve at the knee, or the validation that was observed there.
        beam: Ways into a state that are followed; 1 is the paper's.
        max_epochs_per_edge: Epochs of an edge at most.
        max_gpu_hours: Start no further edge once so many hours, times devices, have been spent.
        num_threads: Threads of torch per edge on the CPU. Sums are rounded otherwise with another number, so set it
            where results are to be equal to the last bit, wherever edges run.
        stages: For a hand-tuned grid: the epochs of every state, in place of the knee.
        trainings: For a hand-tuned grid: what its report says of the trainings.

    Raises:
        ValueError: If a setting has a key that no factory takes, before the first epoch.
        JournalError: If the folder holds the search of another plan.
        LockedError: If another search runs in the folder.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.
    """

    def __init__(
        self,
        graph: TransitionGraph,
        *,
        monitor: str,
        dirpath: str | os.PathLike[str],
        model: Callable[..., LightningModule] | None = None,
        data: Callable[..., LightningDataModule] | None = None,
        trainer: Callable[..., Trainer] | None = None,
        mode: Mode = "max",
        knee: Mapping[str, Any] | None = None,
        start_value: float | None = None,
        seed: int = 0,
        progress: bool = True,
        recipe: Recipe | None = None,
        executor: str | ExecutorOptions | EdgeExecutor = "in_process",
        preset: str = "paper",
        value: ValueKind = "fitted",
        beam: int = 1,
        max_epochs_per_edge: int | None = None,
        max_gpu_hours: float | None = None,
        num_threads: int | None = None,
        stages: Mapping[str, FixedStage] | None = None,
        trainings: Mapping[str, Any] | None = None,
    ) -> None:
        checked_choice("mode", mode, get_args(Mode))
        checked_choice("preset", preset, PRESETS)
        checked_choice("value", value, get_args(ValueKind))
        for name, number in (
            ("beam", beam),
            ("max_epochs_per_edge", max_epochs_per_edge),
            ("num_threads", num_threads),
        ):
            if number is not None and number < 1:
                raise ValueError(f"`{name}` must be at least 1, got {number!r}.")
        if max_gpu_hours is not None and not max_gpu_hours > 0:
            raise ValueError(f"`max_gpu_hours` must be above 0, got {max_gpu_hours!r}.")
        if recipe is None:
            if model is None or data is None or trainer is None:
                raise ValueError("`model`, `data` and `trainer` must all be given, or a `recipe` instead.")
            recipe = FactoryRecipe(model=model, data=data, trainer=trainer)
        self.graph, self.recipe = graph, recipe
        self.monitor, self.mode = monitor, mode
        self.dirpath = Path(dirpath)
        self.knee = {**PRESETS[preset].knee, **(knee or {})}
        self.racing = PRESETS[preset].racing
        self.start_value = start_value
        self.seed, self.progress = seed, progress
        self.executor = ExecutorOptions(name=cast(Any, executor)) if isinstance(executor, str) else executor
        self.value, self.beam = value, beam
        self.max_epochs_per_edge, self.max_gpu_hours = max_epochs_per_edge, max_gpu_hours
        self.num_threads = num_threads
        self.stages, self.trainings = stages or {}, trainings
        self._intact: set[tuple[str, int]] = set()

    def search(self) -> SearchResult:
        """Run the edges that have not finished yet, and return the best path.

        Called again after an interruption, it goes on where it was; after its end, it trains nothing. Writes
        ``journal.jsonl``, ``path.yaml`` and ``report.html`` to the folder.

        Raises:
            RuntimeError: If every training diverged, or the budget ended before the first one had finished.
            EdgeError: If an edge failed in another process.
        """
        with hushed():
            return self._search()

    def _search(self) -> SearchResult:
        self.recipe.check(self.graph.settings[state] for state in self.graph.states[1:])
        here = runs_here(self.executor)
        with ExitStack() as stack:
            if not here:
                stack.enter_context(terminable())
            # The first Trainer only starts the processes, so that even the first decision is the same for all.
            ranks = Ranks(self.recipe.build_trainer(str(self.dirpath)) if here else None)
            ranks.decide(lambda: self._lock(stack))
            journal = Journal(self.dirpath / "journal.jsonl")
            plan = self._plan()
            outcomes = ranks.decide(lambda: journal.open(plan))
            placement = place(self.executor, self.recipe, self.graph, self.dirpath, beam=self.beam)
            stack.enter_context(ended_with_search(placement))
            display = SearchDisplay(self.graph, self.mode, beam=self.beam, enabled=self.progress and ranks.is_first)
            self._announce(display, placement, outcomes)
            with display:
                display.resume(outcomes)
                outcomes = SearchRun(self, placement, ranks, journal, plan.fingerprint, display, outcomes).to_the_end()
            return self._result(outcomes, ranks, display)

    def _announce(self, display: SearchDisplay, placement: Placement, outcomes: Mapping[Edge, EdgeOutcome]) -> None:
        """Say where edges run and what room they take, before the first one."""
        if not self.progress or len(outcomes) == len(searched_edges(self.graph, self.beam)):
            return
        if placement.sentence:
            display.say(placement.sentence)
        if not outcomes:
            # On all ranks: a model may wait for the others while it is built.
            weights = weights_size(self.recipe, self.graph.settings[self.graph.states[1]], str(self.dirpath))
            if weights is not None:
                kept = (len(self.graph.states) - 1) * self.beam
                peak = peak_disk(weights, num_kept=kept, num_running=placement.num_workers)
                display.say(disk_sentence(peak, self.dirpath))

    def _lock(self, stack: ExitStack) -> None:
        self.dirpath.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(self.dirpath / "lock"))

    def _result(self, outcomes: Mapping[Edge, EdgeOutcome], ranks: Ranks, display: SearchDisplay) -> SearchResult:
        is_complete = not runnable_edges(self.graph, outcomes, self.mode, self.beam)
        choose = best_final if is_complete else best_so_far
        final = choose(self.graph, outcomes, self.mode, self.beam)
        if final is None and outcomes:
            raise RuntimeError(
                f"Every training diverged: no final state has a finite {self.monitor!r}. "
                "Start with a lower learning rate."
            )
        if final is None:
            raise RuntimeError(f"`max_gpu_hours` ({self.max_gpu_hours!r}) ended before the first edge had finished.")
        path = OptimizationPath.from_outcomes(
            self.graph, outcomes, final, monitor=self.monitor, mode=self.mode, beam=self.beam, partial=not is_complete
        )
        ranks.decide(lambda: self._publish(path))
        display.finish(path if self.trainings is None else None)
        if not is_complete:
            display.say(
                f"The budget of {self.max_gpu_hours:g} GPU-hours is spent: {len(outcomes)} of "
                f"{len(searched_edges(self.graph, self.beam))} edges have finished, and the path is the best of them. "
                "The same command with a larger budget goes on."
            )
        ranks.barrier()
        winners = winning_edges(self.graph, outcomes, self.mode, self.beam, partial=not is_complete)
        weights = self.folder(winners[final]) / "weights.ckpt"
        return SearchResult(path=path, outcomes=outcomes, weights=weights, is_complete=is_complete)

    def _publish(self, path: OptimizationPath) -> None:
        if self.trainings is None:  # the states of a grid or a study are not those of the plan
            path.save(self.dirpath / "path.yaml")
        write_report(self.dirpath)

    def _plan(self) -> PlanRecord:
        rule = KneeRule(**{name: value for name, value in self.knee.items() if name in KneeRule.__dataclass_fields__})
        return PlanRecord(
            graph=self.graph,
            monitor=self.monitor,
            mode=self.mode,
            seed=self.seed,
            knee={**vars(rule), **self.knee},
            search={
                "value": self.value,
                "racing": self.racing,
                "beam": self.beam,
                "max_epochs_per_edge": self.max_epochs_per_edge,
                "trainings": self.trainings,
            },
            experiment={"start_value": self.start_value, **self.recipe.describe()},
        )

    def job(self, edge: Edge, outcomes: Mapping[Edge, EdgeOutcome], plan: str, placement: Placement) -> EdgeJob:
        """Describe an edge whose parent is settled."""
        parent_weights = None
        if edge.parent != START:
            winners = winning_edges(self.graph, outcomes, self.mode, self.beam)
            parent_weights = str(self.folder(winners[edge.parent]) / "weights.ckpt")
        rival = rival_of(edge, self.graph, outcomes, mode=self.mode, beam=self.beam) if self.racing else None
        return EdgeJob(
            edge=edge,
            setting=self.graph.settings[edge.child],
            parent_weights=parent_weights,
            start_value=self.start_value,
            monitor=self.monitor,
            mode=self.mode,
            knee=self.knee,
            rival=rival,
            value=self.value,
            max_epochs=self.max_epochs_per_edge,
            stage=self.stages.get(edge.child),
            devices=placement.devices,
            accumulate=placement.accumulate,
            num_threads=self.num_threads or placement.num_threads,
            seed=self.seed,
            plan=plan,
            folder=str(self.folder(edge)),
        )

    def folder(self, edge: Edge) -> Path:
        """The folder of an edge: a number, as the names of states may hold anything, and the names to read it by."""
        names = re.sub(r"[^\w.+#-]+", ".", f"{edge.parent}--{edge.child}")
        number = searched_edges(self.graph, self.beam).index(edge)
        return self.dirpath.absolute() / "edges" / f"{number:03d}_{names}"

    def has_intact_weights(self, outcome: EdgeOutcome) -> bool:
        """Whether the weights of an edge are there as they were written; looked at once as long as the file stays."""
        file = self.folder(outcome.edge) / "weights.ckpt"
        try:
            mark = (str(file), file.stat().st_mtime_ns)
            expected = (outcome.details or {}).get("sha256")
            if mark not in self._intact and expected not in (None, file_checksum(file)):
                return False
        except OSError:
            return False
        self._intact.add(mark)
        return True
