"""Search for the best path through a transition graph."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, TransitionGraph
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.messages import checked_choice
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.search import EdgeOutcome, best_final, runnable_edges, winning_edges
from lightning_opplan.reporting import SearchDisplay, write_report
from lightning_opplan.tuner.edge import EdgeJob, hushed, run_edge
from lightning_opplan.tuner.ranks import Ranks
from lightning_opplan.tuner.recipe import FactoryRecipe, Recipe

__all__ = ["PathSearchTuner", "SearchResult"]


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        path: The best path.
        outcomes: All edges.
        weights: File of the weights at the end of the path, as trained in the search.
    """

    path: OptimizationPath
    outcomes: Mapping[Edge, EdgeOutcome]
    weights: Path


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
        dirpath: Local folder of the search, for its journal, weights, logs and results.
        knee: Arguments of `KneeStopping`, such as ``{"patience": 10}``.
        start_value: Value of an untrained model (y₀ of the edges from the start). By default it is measured; with
            ``mode="max"`` a value above 0 then counts as 0, what the paper takes an untrained classifier to be worth.
        seed: Seed of everything random in the search.
        progress: Show the table of edges while the search runs.
        recipe: In place of `model`, `data` and `trainer`: makes experiments in its own way.

    Raises:
        ValueError: If a setting has a key that no factory takes, before the first epoch.
        JournalError: If the folder holds the search of another plan.

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
    ) -> None:
        checked_choice("mode", mode, get_args(Mode))
        if recipe is None:
            if model is None or data is None or trainer is None:
                raise ValueError("`model`, `data` and `trainer` must all be given, or a `recipe` instead.")
            recipe = FactoryRecipe(model=model, data=data, trainer=trainer)
        self.graph, self.recipe = graph, recipe
        self.monitor, self.mode = monitor, mode
        self.dirpath = Path(dirpath)
        self.knee = dict(knee or {})
        self.start_value = start_value
        self.seed, self.progress = seed, progress

    def search(self) -> SearchResult:
        """Run the edges that have not finished yet, and return the best path.

        Called again after an interruption, it goes on where it was; after its end, it trains nothing. Writes
        ``journal.jsonl``, ``path.yaml`` and ``report.html`` to the folder.

        Raises:
            RuntimeError: If every training diverged.
        """
        with hushed():
            return self._search()

    def _search(self) -> SearchResult:
        self.recipe.check(self.graph.settings[state] for state in self.graph.states[1:])
        # The first Trainer only starts the processes, so that even the first decision is the same for all.
        ranks = Ranks(self.recipe.build_trainer(str(self.dirpath)))
        journal = Journal(self.dirpath / "journal.jsonl")
        plan = self._plan()
        outcomes = ranks.decide(lambda: journal.open(plan))
        display = SearchDisplay(self.graph, self.mode, enabled=self.progress and ranks.is_first)
        with display:
            display.resume(outcomes)
            while edges := runnable_edges(self.graph, outcomes):
                edge = ranks.decide(lambda ready=edges: ready[0])  # type: ignore[misc]
                display.start(edge)
                outcome = run_edge(self._job(edge, outcomes, plan.fingerprint), self.recipe, ranks, display.epoch)
                ranks.decide(lambda done=outcome: journal.append(done))  # type: ignore[misc]
                outcomes = {**outcomes, edge: outcome}
                display.end(outcome)
        final = best_final(self.graph, outcomes, self.mode)
        if final is None:
            raise RuntimeError(
                f"Every training diverged: no final state has a finite {self.monitor!r}. "
                "Start with a lower learning rate."
            )
        path = OptimizationPath.from_outcomes(self.graph, outcomes, final, monitor=self.monitor, mode=self.mode)
        ranks.decide(lambda: self._publish(path))
        display.finish(path)
        ranks.barrier()
        last = Edge(path.steps[-2].state if len(path.steps) > 1 else START, path.steps[-1].state)
        return SearchResult(path=path, outcomes=outcomes, weights=self._folder(last) / "weights.ckpt")

    def _publish(self, path: OptimizationPath) -> None:
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
            experiment={"start_value": self.start_value, **self.recipe.describe()},
        )

    def _job(self, edge: Edge, outcomes: Mapping[Edge, EdgeOutcome], plan: str) -> EdgeJob:
        parent_weights = None
        if edge.parent != START:
            parent_weights = str(
                self._folder(winning_edges(self.graph, outcomes, self.mode)[edge.parent]) / "weights.ckpt"
            )
        return EdgeJob(
            edge=edge,
            setting=self.graph.settings[edge.child],
            parent_weights=parent_weights,
            start_value=self.start_value,
            monitor=self.monitor,
            mode=self.mode,
            knee=self.knee,
            seed=self.seed,
            plan=plan,
            folder=str(self._folder(edge)),
        )

    def _folder(self, edge: Edge) -> Path:
        """The folder of an edge: a number, as the names of states may hold anything, and the names to read it by."""
        names = re.sub(r"[^\w.+-]+", ".", f"{edge.parent}--{edge.child}")
        return self.dirpath.absolute() / "edges" / f"{self.graph.edges.index(edge):03d}_{names}"
