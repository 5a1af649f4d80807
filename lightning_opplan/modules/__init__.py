"""LightningModules around the networks."""

from lightning_opplan.modules.image_classifier import ImageClassifier
from lightning_opplan.modules.video_classifier import VideoClassifier

__all__ = ["ImageClassifier", "VideoClassifier"]
