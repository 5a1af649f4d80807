"""P3D: pseudo-3D residual networks, whose blocks split 3×3×3 into space and time in three ways by turns.

References:
    Qiu et al., "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks", ICCV 2017.
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4.
"""

from typing import Final

from torch import Tensor
from typing_extensions import override

from lightning_opplan.models.layers import SpatialConv3d, TemporalConv3d
from lightning_opplan.models.registry import register_resnets
from lightning_opplan.models.video_resnet import ResidualBlock, VideoResNet

__all__ = ["P3DBlock"]

_KINDS: Final = "ABC"


class P3DBlock(ResidualBlock):
    """A residual block of kind A, B or C; the kinds cycle through the network.

    A: 1×3×3, then 3×1×1. B: both of the same input, summed. C: 1×3×3 with its activation, then 3×1×1 added to it.

    In a basic block of kind B, the two temporal convolutions make a stream of their own, as in the released
    implementation: the second goes on from what the first one gave, and each is added to the spatial one beside it.
    """

    @property
    def kind(self) -> str:
        """A, B or C."""
        return _KINDS[self.index % len(_KINDS)]

    @property
    @override
    def in_series(self) -> bool:
        return self.kind == "A"

    @override
    def add_convolution(self, number: int, in_channels: int, out_channels: int, spatial_stride: int) -> None:
        self.add_module(f"conv{number}", SpatialConv3d(in_channels, out_channels, spatial_stride))
        beside = self.kind == "B"
        temporal = TemporalConv3d(
            in_channels if beside else out_channels, out_channels, spatial_stride if beside else 1
        )
        self.add_module(f"conv{number}_t", temporal)

    @override
    def convolve(self, number: int, x: Tensor) -> Tensor:
        conv, conv_t, bn = f"conv{number}", f"conv{number}_t", f"bn{number}"
        if self.kind == "A":
            return self.layer(bn, self.layer(conv_t, self.layer(conv, x)))
        if self.kind == "B":
            return self.layer(bn, self.layer(conv, x) + self.layer(conv_t, x))
        spatial = self.layer(bn, self.layer(conv, x))
        if number == 1 or self.bottleneck:  # no activation before the sum with the shortcut
            spatial = self.relu(spatial)
        return spatial + self.layer(conv_t, spatial)

    @override
    def residual(self, x: Tensor) -> Tensor:
        if self.kind != "B" or self.bottleneck:
            return super().residual(x)
        temporal = self.layer("conv1_t", x)
        first = self.relu(self.bn1(self.conv1(x) + temporal))
        return self.layer("bn2", self.layer("conv2", first) + self.layer("conv2_t", temporal))


register_resnets("p3d", VideoResNet, P3DBlock)
