"""R(2+1)D: residual networks whose 3×3×3 convolutions are split into space, then time, at an equal cost.

References:
    Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018.
"""

from torch import Tensor
from typing_extensions import override

from lightning_opplan.models.layers import SpatialConv3d, TemporalConv3d
from lightning_opplan.models.registry import register_resnets
from lightning_opplan.models.video_resnet import ResidualBlock, VideoResNet

__all__ = ["R2Plus1DBlock"]


class R2Plus1DBlock(ResidualBlock):
    """A residual block with convolutions of 1×3×3, then 3×1×1.

    The channels between the two are chosen so that both together have the parameters of one convolution of 3×3×3
    (Tran et al., section 3.5): 27·N² = 9·N·M + 3·M·N gives M = 9/4·N.

    Differs from the paper: no normalisation and no ReLU between the two, as in the released implementation of Qiu et
    al.; the parameters of its Table 4 network leave no room for them.
    """

    @override
    def add_convolution(self, number: int, in_channels: int, out_channels: int, spatial_stride: int) -> None:
        between = out_channels * 9 // 4
        self.add_module(f"conv{number}", SpatialConv3d(in_channels, between, spatial_stride))
        self.add_module(f"conv{number}_t", TemporalConv3d(between, out_channels))

    @override
    def convolve(self, number: int, x: Tensor) -> Tensor:
        return self.layer(f"bn{number}", self.layer(f"conv{number}_t", self.layer(f"conv{number}", x)))


register_resnets("r2plus1d", VideoResNet, R2Plus1DBlock)
