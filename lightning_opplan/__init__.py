"""Plan in which order a PyTorch Lightning run changes its hyper-parameters, and after how many epochs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning_opplan.callbacks import (
        ExponentialWeightAveraging,
        FreezeBatchNorm,
        GrowingWeightAveraging,
        KneeStopping,
    )
    from lightning_opplan.data import ImageDataModule, VideoDataModule
    from lightning_opplan.messages import OpplanError
    from lightning_opplan.models import get_model, list_models
    from lightning_opplan.modules import ImageClassifier, VideoClassifier
    from lightning_opplan.planning.graph import Axis, Edge, TransitionGraph
    from lightning_opplan.planning.halving import Halving
    from lightning_opplan.planning.knee import KneeRule
    from lightning_opplan.planning.options import BudgetOptions, ExecutorOptions, SearchOptions
    from lightning_opplan.planning.outcome import EdgeOutcome, Work
    from lightning_opplan.planning.path import OptimizationPath
    from lightning_opplan.planning.rows import EdgeRow, StateRow
    from lightning_opplan.planning.schedule import Anneal
    from lightning_opplan.planning.search import Search
    from lightning_opplan.planning.space import SearchSpace
    from lightning_opplan.reporting import (
        plot_comparison,
        plot_curves,
        plot_graph,
        plot_paths,
        write_optuna,
        write_tables,
    )
    from lightning_opplan.tuner import (
        Ensemble,
        PathSearchTuner,
        SearchResult,
        estimate_cost,
        follow_path,
        predict_ensemble,
        run_control,
        run_delivery,
        run_grid,
        run_study,
        score_ensemble,
    )

__version__ = "0.1.0"

__all__ = [
    "Anneal",
    "Axis",
    "BudgetOptions",
    "Edge",
    "EdgeOutcome",
    "EdgeRow",
    "Ensemble",
    "ExecutorOptions",
    "ExponentialWeightAveraging",
    "FreezeBatchNorm",
    "GrowingWeightAveraging",
    "Halving",
    "ImageClassifier",
    "ImageDataModule",
    "KneeRule",
    "KneeStopping",
    "OpplanError",
    "OptimizationPath",
    "PathSearchTuner",
    "Search",
    "SearchOptions",
    "SearchResult",
    "SearchSpace",
    "StateRow",
    "TransitionGraph",
    "VideoClassifier",
    "VideoDataModule",
    "Work",
    "estimate_cost",
    "follow_path",
    "get_model",
    "list_models",
    "plot_comparison",
    "plot_curves",
    "plot_graph",
    "plot_paths",
    "predict_ensemble",
    "run_control",
    "run_delivery",
    "run_grid",
    "run_study",
    "score_ensemble",
    "write_optuna",
    "write_tables",
]

# Imported at first use: a training loop that takes the knee rule alone needs neither torch nor Lightning nor PyAV.
_PLACES: Final = {
    "Anneal": "planning.schedule",
    "Axis": "planning.graph",
    "BudgetOptions": "planning.options",
    "Edge": "planning.graph",
    "EdgeOutcome": "planning.outcome",
    "EdgeRow": "planning.rows",
    "Ensemble": "tuner",
    "ExecutorOptions": "planning.options",
    "ExponentialWeightAveraging": "callbacks",
    "FreezeBatchNorm": "callbacks",
    "GrowingWeightAveraging": "callbacks",
    "Halving": "planning.halving",
    "ImageClassifier": "modules",
    "ImageDataModule": "data",
    "KneeRule": "planning.knee",
    "KneeStopping": "callbacks",
    "OpplanError": "messages",
    "OptimizationPath": "planning.path",
    "PathSearchTuner": "tuner",
    "Search": "planning.search",
    "SearchOptions": "planning.options",
    "SearchResult": "tuner",
    "SearchSpace": "planning.space",
    "StateRow": "planning.rows",
    "TransitionGraph": "planning.graph",
    "VideoClassifier": "modules",
    "VideoDataModule": "data",
    "Work": "planning.outcome",
    "estimate_cost": "tuner",
    "follow_path": "tuner",
    "get_model": "models",
    "list_models": "models",
    "plot_comparison": "reporting",
    "plot_curves": "reporting",
    "plot_graph": "reporting",
    "plot_paths": "reporting",
    "predict_ensemble": "tuner",
    "run_control": "tuner",
    "run_delivery": "tuner",
    "run_grid": "tuner",
    "run_study": "tuner",
    "score_ensemble": "tuner",
    "write_optuna": "reporting",
    "write_tables": "reporting",
}
_ROOMS: Final = ("callbacks", "cli", "data", "integrations", "models", "modules", "planning", "reporting", "tuner")

if not TYPE_CHECKING:  # a type checker sees the imports above, and that other names are wrong

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_ROOMS})
