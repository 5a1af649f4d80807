"""Search for the best path through a transition graph."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.files import local_folder
from lightning_opplan.messages import checked_choice, checked_names
from lightning_opplan.planning.cost import CostEstimate
from lightning_opplan.planning.curves import Mode, sounds_lower
from lightning_opplan.planning.graph import Setting, TransitionGraph
from lightning_opplan.planning.hand_tuned import EPOCHS, PAPER_DECAYS, Decay
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import BudgetOptions, ExecutorOptions, SearchOptions
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.schedule import Anneal
from lightning_opplan.planning.space import Arms, SearchSpace
from lightning_opplan.reporting import write_report
from lightning_opplan.tuner.deliver import Delivered, run_control, run_delivery
from lightning_opplan.tuner.edges.recipe import FactoryRecipe, Recipe
from lightning_opplan.tuner.estimate import estimate_cost
from lightning_opplan.tuner.executors.processes import EdgeExecutor
from lightning_opplan.tuner.follow import follow_path
from lightning_opplan.tuner.grid import run_grid, run_study
from lightning_opplan.tuner.loop import EdgeListener
from lightning_opplan.tuner.search_run import run_search
from lightning_opplan.tuner.spec import SearchResult, SearchSpec

__all__ = ["PathSearchTuner"]


class PathSearchTuner:
    """Find the order of settings, and the epochs for each, that train a model best.

    Every edge of the graph is a training of its own: a fresh Trainer, model and data, the parent state's weights, the
    child state's setting, stopped at the knee of its validation curve. Dynamic programming takes the best parent of
    every state and reads the best path off the final state.

    Args:
        graph: States and the edges between them; for a search with a `budget` a lattice, or a `SearchSpace`.
        monitor: Metric that validation logs.
        dirpath: Folder of the search, for its journal, weights, logs and results; seen by all machines it runs on.
        model: Function or class that returns a new LightningModule; a state's ``model.*`` are its keyword arguments.
        data: The same for the LightningDataModule, or a tuple of loaders, and ``data.*``. Validation should not depend
            on the state. Left out, the model has loaders of its own.
        trainer: The same for the Trainer and ``trainer.*``; must pass on `callbacks` and `default_root_dir`.
        recipe: In place of `model`, `data` and `trainer`: makes experiments in its own way.
        mode: Whether a higher or a lower value of it is better; by default a higher one, with a warning where that
            does not seem right.
        options: How to search; by default as the paper does.
        executor: Where edges run: ``"in_process"``, ``"processes"``, ``"ray"``, ``"dask"``, ``"slurm"``, the
            `ExecutorOptions` of one of them, or an object whose ``submit`` returns futures.
        seed: Seed of everything random in the search.
        on_edge_end: Called with every edge that has finished, and its `EdgeOutcome`.
        **further: Fields of `SearchOptions`, on top of `options`: ``preset="fast"``, ``beam=2``. For `knee` and
            `budget` a mapping does, such as ``{"patience": 5}`` or ``{"epochs": 600}``.

    Attributes:
        spec: All of this as one value.

    Raises:
        ValueError: If an argument is wrong, or, before the first epoch, if a setting has a key that no factory takes.
        JournalError: If the folder holds the search of another plan.
        LockedError: If another search runs in the folder.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 3.
    """

    def __init__(
        self,
        graph: TransitionGraph | SearchSpace,
        *,
        monitor: str,
        dirpath: str | os.PathLike[str],
        model: Callable[..., LightningModule] | None = None,
        data: Callable[..., Any] | None = None,
        trainer: Callable[..., Trainer] | None = None,
        recipe: Recipe | None = None,
        mode: Mode | None = None,
        options: SearchOptions | None = None,
        executor: str | ExecutorOptions | EdgeExecutor = "in_process",
        seed: int = 0,
        on_edge_end: EdgeListener | None = None,
        **further: Any,
    ) -> None:
        is_mode_given = mode is not None
        mode = "max" if mode is None else mode
        checked_choice("mode", mode, get_args(Mode))
        if not is_mode_given and sounds_lower(monitor):
            rank_zero_warn(
                f"{monitor!r} sounds as if lower were better, and a search takes higher for better. Give `mode`."
            )
        if recipe is None:
            if model is None or trainer is None:
                raise ValueError("`model` and `trainer` must be given, or a `recipe` instead.")
            recipe = FactoryRecipe(model=model, data=data, trainer=trainer)
        options = _with(options or SearchOptions(), further)
        arms = _arms(graph, recipe, options, seed)
        if arms is not None:
            states = arms.graph
        elif isinstance(graph, TransitionGraph):
            states = graph
        else:
            raise ValueError("`graph` must be a `TransitionGraph` without a `budget`, got a `SearchSpace`.")
        self.spec = SearchSpec(
            graph=states,
            axes=graph.axes,
            branches=graph.branches,
            arms=arms,
            recipe=recipe,
            monitor=monitor,
            mode=mode,
            is_mode_given=is_mode_given,
            # User code may change the current folder.
            dirpath=local_folder(dirpath).absolute(),
            options=options,
            executor=ExecutorOptions(name=cast(Any, executor)) if isinstance(executor, str) else executor,
            seed=seed,
            on_edge_end=on_edge_end,
        )

    def search(self) -> SearchResult:
        """Run the edges that have not finished yet, and return the best path.

        Called again after an interruption, it goes on where it was; after its end, it trains nothing. Writes
        ``journal.jsonl``, ``path.yaml`` and ``report.html`` to the folder.

        Raises:
            SearchError: If every training diverged, or the budget ended before the first one had finished.
            EdgeError: If an edge failed in another process.
        """
        return run_search(self.spec)

    def follow(self, path: OptimizationPath | None = None, *, setting: Setting | None = None) -> Path:
        """Train along a path, by default the one that was found, in ``follow`` below the folder; see `follow_path`."""
        spec = self.spec
        path = path or SearchResult.load(spec.dirpath).path
        return follow_path(
            path, spec.recipe, dirpath=spec.dirpath / "follow", setting=setting, seed=spec.seed,
            progress=spec.options.progress,
        )  # fmt: skip

    def deliver(
        self, *, members: int | None = None, anneal: Anneal | None = None, setting: Setting | None = None
    ) -> Delivered:
        """Train what was found anew, for the rest of the budget; see `run_delivery`."""
        return run_delivery(self, members=members, anneal=anneal, setting=setting)

    def control(self, *, schedules: Sequence[str] = ("linear", "cosine"), setting: Setting | None = None) -> Delivered:
        """Train what nobody plans, for the same cost; see `run_control`."""
        return run_control(self, schedules=schedules, setting=setting)

    def grid(self, *, epochs: Sequence[int] = EPOCHS, decays: Sequence[Decay] = PAPER_DECAYS) -> SearchResult:
        """Train the hand-tuned grid of the same axes and branches; see `run_grid`."""
        return run_grid(self, axes=self.spec.axes, branches=self.spec.branches, epochs=epochs, decays=decays)

    def study(self) -> SearchResult:
        """Train the variants of the path that was found; see `run_study`."""
        return run_study(self)

    def estimate(self) -> CostEstimate:
        """Measure some batches, and say what the search costs; see `estimate_cost`."""
        return estimate_cost(self)

    def report(self) -> Path:
        """Write the report anew, and return its file."""
        return write_report(self.spec.dirpath)


def _arms(graph: TransitionGraph | SearchSpace, recipe: Recipe, options: SearchOptions, seed: int) -> Arms | None:
    """The settings that a search with a budget tries."""
    if options.budget is None:
        return None
    if isinstance(graph, TransitionGraph):
        if not graph.axes:
            raise ValueError("`graph` must be made of axes for a search with a `budget`, got states written out.")
        graph = SearchSpace(axes=graph.axes, branches=graph.branches)
    own = recipe.values_of(graph.keys)
    return graph.arms(number=options.budget.arms, own=own, moves=options.budget.moves, seed=seed)


def _with(options: SearchOptions, further: dict[str, Any]) -> SearchOptions:
    """Options with some of them changed, those that are values of their own perhaps given as a mapping."""
    checked_names("PathSearchTuner", further, [field.name for field in fields(SearchOptions)])
    knee = further.get("knee") or options.knee
    if not isinstance(knee, KneeRule):
        checked_names("knee", knee, [field.name for field in fields(KneeRule)])
        knee = replace(options.knee, **knee)
    budget = further.get("budget", options.budget)
    if isinstance(budget, Mapping):
        checked_names("budget", budget, [field.name for field in fields(BudgetOptions)])
        budget = BudgetOptions(**budget)
    return replace(options, **{**further, "knee": knee, "budget": budget})
