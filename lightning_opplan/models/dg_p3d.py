"""DG-P3D: dual-head, global-contextual, pseudo-3D residual networks.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4 and Figure 3.
    Qiu et al., "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks", ICCV 2017 (blocks A, B, C).
    Cao et al., "GCNet", ICCV Workshops 2019 (global context).
"""

from typing import Any, Final

from torch import Tensor, nn

from lightning_opplan.models.registry import register
from lightning_opplan.models.video_resnet import DEPTHS, VideoResNet, downsampling

__all__ = ["GlobalContextP3DBottleneck", "dg_p3d"]

_KINDS: Final = "ABC"
_REDUCTION: Final = 16  # width of the global context, facts of Figure 3


class GlobalContextP3DBottleneck(nn.Module):
    """A bottleneck whose 3×3×3 convolution is split into space and time, with global context on the residual.

    The kinds cycle through the network. A: in space, then in time. B: side by side, summed. C: in space, then a
    residual step in time.

    Args:
        in_channels: Channels of the input.
        width: Channels between the two 1×1×1 convolutions; the output has four times as many.
        index: Number of the block in the network, from 0; decides the kind.
        spatial_stride: Stride in height and width.
    """

    expansion: Final = 4

    def __init__(self, in_channels: int, width: int, *, index: int, spatial_stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        stride = (1, spatial_stride, spatial_stride)
        self.kind = _KINDS[index % len(_KINDS)]
        self.conv1 = nn.Conv3d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), stride=stride, padding=(0, 1, 1), bias=False)
        self.conv2_t = nn.Conv3d(
            width, width, (3, 1, 1), stride=stride if self.kind == "B" else 1, padding=(1, 0, 0), bias=False
        )
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsampling(in_channels, out_channels, spatial_stride)
        self.fc1 = nn.Linear(out_channels, out_channels // _REDUCTION)
        self.fc2 = nn.Linear(out_channels // _REDUCTION, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to ``(B, 4·width, T, H/stride, W/stride)``."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn3(self.conv3(self._space_and_time(residual)))
        context = self.fc2(self.relu(self.fc1(residual.mean(dim=(2, 3, 4)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(residual + context[:, :, None, None, None] + shortcut)
        return out

    def _space_and_time(self, x: Tensor) -> Tensor:
        out: Tensor
        if self.kind == "A":
            out = self.relu(self.bn2(self.conv2_t(self.conv2(x))))
        elif self.kind == "B":
            out = self.relu(self.bn2(self.conv2(x) + self.conv2_t(x)))
        else:
            spatial = self.relu(self.bn2(self.conv2(x)))
            out = self.relu(spatial + self.conv2_t(spatial))
        return out


def dg_p3d(depths: tuple[int, ...], *, num_classes: int, **options: Any) -> VideoResNet:
    """Build a DG-P3D network; `options` are those of `VideoResNet`."""
    block = GlobalContextP3DBottleneck
    return VideoResNet(
        block, expansion=block.expansion, depths=depths, num_classes=num_classes, dual_head=True, **options
    )


@register("dg_p3d_resnet50")
def dg_p3d_resnet50(*, num_classes: int, dropout: float = 0.5, in_channels: int = 3) -> VideoResNet:
    """DG-P3D on ResNet-50: 50 382 288 parameters for 400 classes."""
    return dg_p3d(DEPTHS["resnet50"], num_classes=num_classes, dropout=dropout, in_channels=in_channels)


@register("dg_p3d_tiny")
def dg_p3d_tiny(*, num_classes: int, dropout: float = 0.0, in_channels: int = 3) -> VideoResNet:
    """A DG-P3D small enough for a CPU and clips of 32 px: one block per stage, 8 channels in the stem."""
    return dg_p3d(
        (1, 1, 1, 1), num_classes=num_classes, dropout=dropout, in_channels=in_channels, width=8, stem_size=5
    )
