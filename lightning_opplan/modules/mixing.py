"""Mixup and CutMix, on clips as on images."""

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

__all__ = ["Mixing"]


class Mixing(nn.Module):
    """Mix every batch with itself turned by one, by mixup or CutMix, whichever is drawn.

    Args:
        num_classes: Number of classes.
        mixup: α of mixup; 0 for none.
        cutmix: α of CutMix; 0 for none. All frames of a clip are cut at the same place.

    Raises:
        ValueError: If an α is negative.

    References:
        Zhang et al., "mixup", ICLR 2018. Yun et al., "CutMix", ICCV 2019.
    """

    def __init__(self, num_classes: int, *, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        super().__init__()
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if alpha < 0:
                raise ValueError(f"`{name}` must be the α of a Beta distribution, or 0 for none, got {alpha!r}.")
        self._ways = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        self._ways += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            inputs: Clips ``(B, C, T, H, W)`` or images ``(B, C, H, W)``.
            labels: ``(B,)``.

        Returns:
            The inputs, and the share of every class ``(B, num_classes)``; as they were, if nothing is mixed.
        """
        if not self._ways:
            return inputs, labels
        way = self._ways[int(torch.randint(len(self._ways), ()))] if len(self._ways) > 1 else self._ways[0]
        is_clips = inputs.ndim == 5
        mixed, shares = way(tv_tensors.Video(inputs) if is_clips else inputs, labels)
        return mixed.as_subclass(Tensor), shares
