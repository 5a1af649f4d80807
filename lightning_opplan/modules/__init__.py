"""LightningModules around the networks."""

from lightning_opplan.modules.video_classifier import VideoClassifier

__all__ = ["VideoClassifier"]
