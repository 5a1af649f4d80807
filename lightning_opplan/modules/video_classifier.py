"""Train and test any video network as a classifier."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from lightning_opplan.models.network import Takes
from lightning_opplan.modules.classifier import Classifier

__all__ = ["VideoClassifier"]


class VideoClassifier(Classifier):
    """A classifier of clips.

    Args:
        network: Name of a network for clips, see `list_models`.
        num_classes: Number of classes.
        views_per_pass: Clips that the test scores at once; a limit on its memory.
        options: Those of `Classifier`.

    References:
        Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.2. Optimizer settings, the sum of the
        heads' losses and the mean accuracy follow the released implementation.
    """

    takes: ClassVar[Takes] = "clips"

    def __init__(self, network: str, num_classes: int, *, views_per_pass: int = 10, **options: Any) -> None:
        super().__init__(network, num_classes, **options)
        self.views_per_pass = views_per_pass

    @override
    def score_whole(self, inputs: Tensor) -> Tensor:
        return self.score_views(inputs)

    def score_views(self, views: Tensor) -> Tensor:
        """Average the scores of all views of each video (section 5.1).

        Args:
            views: ``(B, V, C, T, H, W)``.

        Returns:
            ``(B, num_classes)``.
        """
        passes = torch.split(views.flatten(0, 1), self.views_per_pass)
        scores = torch.cat([self(clips) for clips in passes])
        return scores.reshape(*views.shape[:2], -1).mean(dim=1)
