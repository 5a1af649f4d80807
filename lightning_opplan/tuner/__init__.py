"""The search at work: one fresh Trainer per edge, in the order that the dynamic programme asks for."""

from lightning_opplan.tuner.path_search import PathSearchTuner, SearchResult

__all__ = ["PathSearchTuner", "SearchResult"]
