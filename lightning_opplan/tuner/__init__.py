"""The search at work: one fresh Trainer per edge, in the order that the search asks for."""

from lightning_opplan.tuner.deliver import Delivered, run_control, run_delivery
from lightning_opplan.tuner.ensemble import Ensemble, predict_ensemble, predict_on, score_ensemble
from lightning_opplan.tuner.estimate import estimate_cost
from lightning_opplan.tuner.follow import follow_path
from lightning_opplan.tuner.grid import run_grid, run_study
from lightning_opplan.tuner.loop import EdgeError
from lightning_opplan.tuner.path_search import PathSearchTuner
from lightning_opplan.tuner.spec import SearchError, SearchResult

__all__ = [
    "Delivered",
    "EdgeError",
    "Ensemble",
    "PathSearchTuner",
    "SearchError",
    "SearchResult",
    "estimate_cost",
    "follow_path",
    "predict_ensemble",
    "predict_on",
    "run_control",
    "run_delivery",
    "run_grid",
    "run_study",
    "score_ensemble",
]
