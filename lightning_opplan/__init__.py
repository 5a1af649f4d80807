"""Plan in which order a PyTorch Lightning run changes its hyper-parameters, and after how many epochs."""

from lightning_opplan.callbacks import FreezeBatchNorm, GrowingWeightAveraging, KneeStopping
from lightning_opplan.data import VideoDataModule
from lightning_opplan.messages import OpplanError
from lightning_opplan.models import get_model, list_models
from lightning_opplan.modules import VideoClassifier
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
from lightning_opplan.reporting import plot_comparison, plot_curves, plot_graph, plot_paths, write_optuna, write_tables
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
    "FreezeBatchNorm",
    "GrowingWeightAveraging",
    "Halving",
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
