"""Drop-in Lightning callbacks, each useful alone."""

from lightning_opplan.callbacks.freeze_batch_norm import FreezeBatchNorm
from lightning_opplan.callbacks.knee_stopping import KneeStopping
from lightning_opplan.callbacks.score_writer import ScoreWriter
from lightning_opplan.callbacks.weight_averaging import ExponentialWeightAveraging, GrowingWeightAveraging

__all__ = ["ExponentialWeightAveraging", "FreezeBatchNorm", "GrowingWeightAveraging", "KneeStopping", "ScoreWriter"]
