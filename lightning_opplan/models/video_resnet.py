"""The skeleton that the paper's 3D ConvNets share: one stem, four residual stages, one head or two.

What sets a network apart is its residual block; the file of each paper holds that block alone.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4 and Figure 3.
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["DEPTHS", "BlockBuilder", "VideoResNet", "downsampling"]

BlockBuilder = Callable[..., nn.Module]
"""Builds a residual block from ``(in_channels, width, *, index, spatial_stride)``; `index` counts the blocks of the
whole network from 0."""

DEPTHS: Final = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks per stage (He et al., Table 1)."""

_POOLED_FRAMES: Final = 4


class VideoResNet(nn.Module):
    """A residual network for clips.

    The stem sees four frames at once and moves by four, so a clip of T frames has T/4 steps in time from there on.
    With two heads, the last stage exists twice: the temporal head keeps the time steps and halves the space, the
    spatial head keeps the space and takes the maximum over four time steps. Their scores are averaged.

    Args:
        block: Builder of the residual blocks.
        expansion: Output channels of a block per unit of its width.
        depths: Blocks in each of the four stages.
        num_classes: Scores per head.
        in_channels: Channels of the clip: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before each classifier.
        dual_head: Whether there is a spatial head beside the temporal one.
        width: Channels of the stem and width of the first stage; doubled by every further stage.
        stem_size: Height and width of the stem's kernel in pixels.

    References:
        Figure 3. Module names follow torchvision's ResNet; `layer4_dual` and `fc_dual` belong to the spatial head.
    """

    def __init__(
        self,
        block: BlockBuilder,
        *,
        expansion: int,
        depths: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        dropout: float = 0.5,
        dual_head: bool = False,
        width: int = 64,
        stem_size: int = 7,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(
            in_channels,
            width,
            kernel_size=(4, stem_size, stem_size),
            stride=(4, 2, 2),
            padding=(0, stem_size // 2, stem_size // 2),
            bias=False,
        )
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

        def stage(number: int, *, spatial_stride: int) -> nn.Sequential:
            first = sum(depths[:number])
            before = width if number == 0 else width * 2 ** (number - 1) * expansion
            after = width * 2**number * expansion
            blocks = [
                block(
                    before if position == 0 else after,
                    width * 2**number,
                    index=first + position,
                    spatial_stride=spatial_stride if position == 0 else 1,
                )
                for position in range(depths[number])
            ]
            return nn.Sequential(*blocks)

        self.layer1 = stage(0, spatial_stride=1)
        self.layer2 = stage(1, spatial_stride=2)
        self.layer3 = stage(2, spatial_stride=2)
        self.layer4 = stage(3, spatial_stride=2)
        self.dropout = nn.Dropout(dropout)
        num_features = width * 8 * expansion
        self.fc = nn.Linear(num_features, num_classes)
        self.dual_head = dual_head
        if dual_head:
            self.frame_pool = nn.MaxPool3d((_POOLED_FRAMES, 1, 1), stride=(_POOLED_FRAMES, 1, 1))
            self.layer4_dual = stage(3, spatial_stride=1)
            self.fc_dual = nn.Linear(num_features, num_classes)
        self.min_frames = 4 * (_POOLED_FRAMES if dual_head else 1)
        _initialise(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Score clips.

        Args:
            clips: ``(B, C, T, H, W)``, normalised.

        Returns:
            ``(B, num_classes)``: the mean of the heads' scores, before any softmax.
        """
        heads = self.forward_heads(clips)
        return heads[0] if len(heads) == 1 else torch.stack(heads).mean(dim=0)

    def forward_heads(self, clips: Tensor) -> tuple[Tensor, ...]:
        """Score clips with each head, the temporal one first.

        Args:
            clips: ``(B, C, T, H, W)``, normalised.

        Returns:
            One tensor ``(B, num_classes)`` per head.

        Raises:
            ValueError: If the clips have too few frames.
        """
        if clips.ndim != 5 or clips.shape[2] < self.min_frames:
            raise ValueError(
                f"`clips` must have the shape (B, C, T, H, W) with T ≥ {self.min_frames} frames, got "
                f"{tuple(clips.shape)}."
            )
        x = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores = self.fc(self.dropout(_pooled(self.layer4(x))))
        if not self.dual_head:
            return (scores,)
        spatial = self.layer4_dual(self.frame_pool(x))
        return scores, self.fc_dual(self.dropout(_pooled(spatial)))


def downsampling(in_channels: int, out_channels: int, spatial_stride: int) -> nn.Sequential | None:
    """Return the projection of a block's shortcut, or ``None`` where the shortcut is the identity."""
    if in_channels == out_channels and spatial_stride == 1:
        return None
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1, stride=(1, spatial_stride, spatial_stride), bias=False),
        nn.BatchNorm3d(out_channels),
    )


def _pooled(features: Tensor) -> Tensor:
    return features.mean(dim=(2, 3, 4))


def _initialise(network: nn.Module) -> None:
    """Start as ResNets do (He et al., 2015); the last linear layer of a global context starts at zero."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and name.endswith(".fc2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
