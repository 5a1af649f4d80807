"""The search at work: one fresh Trainer per edge, in the order that the dynamic programme asks for."""

from lightning_opplan.tuner.estimate import estimate_cost
from lightning_opplan.tuner.follow import follow_path
from lightning_opplan.tuner.grid import run_grid, run_study
from lightning_opplan.tuner.loop import EdgeError
from lightning_opplan.tuner.path_search import PathSearchTuner
from lightning_opplan.tuner.search_run import SearchResult

__all__ = [
    "EdgeError",
    "PathSearchTuner",
    "SearchResult",
    "estimate_cost",
    "follow_path",
    "run_grid",
    "run_study",
]
