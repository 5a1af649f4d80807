"""Train and test any image network as a classifier."""

from typing import ClassVar

from lightning_opplan.models.network import Takes
from lightning_opplan.modules.classifier import Classifier

__all__ = ["ImageClassifier"]


class ImageClassifier(Classifier):
    """A classifier of images; its arguments are those of `Classifier`.

    Example:
        >>> ImageClassifier("torchvision/resnet18", 3, optimizer="adamw").network.takes
        'images'
    """

    takes: ClassVar[Takes] = "images"
