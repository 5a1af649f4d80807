"""Plan in which order a PyTorch Lightning run changes its hyper-parameters, and after how many epochs."""

from lightning_opplan.callbacks import FreezeBatchNorm, KneeStopping
from lightning_opplan.data import VideoDataModule
from lightning_opplan.models import get_model, list_models
from lightning_opplan.modules import VideoClassifier
from lightning_opplan.planning.graph import Axis, TransitionGraph
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.tuner import PathSearchTuner

__version__ = "0.1.0"

__all__ = [
    "Axis",
    "FreezeBatchNorm",
    "KneeStopping",
    "OptimizationPath",
    "PathSearchTuner",
    "TransitionGraph",
    "VideoClassifier",
    "VideoDataModule",
    "get_model",
    "list_models",
]
