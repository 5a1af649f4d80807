"""What stands beside a search: the hand-tuned grid, and the variants of a path, under the same accounting.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, sections 5.3 and 5.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lightning_opplan.planning.chains import chain_graph
from lightning_opplan.planning.graph import Axis, Setting
from lightning_opplan.planning.hand_tuned import (
    EPOCHS,
    PAPER_DECAYS,
    SHAPE_KEYS,
    Decay,
    hand_tuned_trainings,
    training_table,
)
from lightning_opplan.planning.options import SearchOptions
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.variants import path_variants, variants_graph
from lightning_opplan.tuner.search_run import run_search
from lightning_opplan.tuner.spec import Planned, SearchResult

__all__ = ["run_grid", "run_study"]


def run_grid(
    tuner: Planned,
    *,
    axes: Sequence[Axis],
    branches: Mapping[str, Setting] | None = None,
    epochs: Sequence[int] = EPOCHS,
    decays: Sequence[Decay] = PAPER_DECAYS,
) -> SearchResult:
    """Train the hand-tuned grid of the paper below a search's folder, in ``grid``; called again, resume.

    Args:
        tuner: The search; its report shows the grid beside it.
        axes: Axes of its graph.
        branches: Branches of its graph.
        epochs: Epochs of a whole training to try.
        decays: How the learning rate is to go, see `HandTuned`.

    Returns:
        The best training as a path, and all outcomes.

    Raises:
        ValueError: If there is one axis only, or a number of epochs is too small for all stages.
    """
    base = tuner.spec.recipe.values_of(SHAPE_KEYS) if "multigrid" in decays else None
    trainings = hand_tuned_trainings(axes=axes, branches=branches, epochs=epochs, decays=decays, base=base)
    graph, stages = chain_graph(trainings)
    spec = replace(
        tuner.spec,
        graph=graph,
        arms=None,
        dirpath=tuner.spec.dirpath / "grid",
        options=replace(tuner.spec.options, preset=SearchOptions.preset, beam=1, budget=None, averaging=False),
        kind="grid",
        stages=stages,
        trainings=training_table(trainings),
    )
    return run_search(spec)


def run_study(tuner: Planned) -> SearchResult:
    """Train the variants of the path that a search found, with one state more or less, below its folder, in ``study``.

    Args:
        tuner: The search; its report shows the variants beside it.

    Returns:
        The best variant as a path, and all outcomes.

    Raises:
        FileNotFoundError: If the search has no path yet.
        ValueError: If the search has a budget: its paths have one state.
    """
    graph = tuner.spec.graph
    if tuner.spec.arms is not None:
        raise ValueError("A study must be of the paper's search, got one with a `budget`, whose paths have no order.")
    path = OptimizationPath.load(tuner.spec.dirpath / "path.yaml")
    path.check(graph)
    variants = path_variants(graph, [step.state for step in path.steps])
    spec = replace(
        tuner.spec,
        graph=variants_graph(graph.settings, variants),
        dirpath=tuner.spec.dirpath / "study",
        options=replace(tuner.spec.options, beam=1),
        kind="study",
        trainings={each.name: {"kind": each.kind, "states": list(each.states)} for each in variants},
    )
    return run_search(spec)
