"""I3D: residual networks whose 3×3 convolutions are inflated to 3×3×3.

References:
    Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017.
    The residual variant with this stem is the one of Qiu et al., ICML 2021, Table 4.
"""

from torch import nn
from typing_extensions import override

from lightning_opplan.models.registry import register_resnets
from lightning_opplan.models.video_resnet import ResidualBlock, VideoResNet

__all__ = ["I3DBlock"]


class I3DBlock(ResidualBlock):
    """A residual block with convolutions of 3×3×3."""

    @override
    def add_convolution(self, number: int, in_channels: int, out_channels: int, spatial_stride: int) -> None:
        stride = (1, spatial_stride, spatial_stride)
        convolution = nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.add_module(f"conv{number}", convolution)


register_resnets("i3d", VideoResNet, I3DBlock)
