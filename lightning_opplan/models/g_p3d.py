"""G-P3D: P3D with global context.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4.
    Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCV Workshops 2019.
"""

from typing import Any, Final

from torch import Tensor, nn
from typing_extensions import override

from lightning_opplan.models.p3d import P3DBlock
from lightning_opplan.models.registry import register_resnets
from lightning_opplan.models.video_resnet import VideoResNet

__all__ = ["GlobalContextP3DBlock"]

_REDUCTION: Final = 16  # facts of Figure 3: the context is C/16 wide


class GlobalContextP3DBlock(P3DBlock):
    """A P3D block whose residual, averaged over time and space, is added to itself through a small perceptron.

    Differs from the released implementation: the perceptron's last layer starts at zero with its bias, so that the
    context starts without any effect.
    """

    def __init__(self, in_channels: int, width: int, **options: Any) -> None:
        super().__init__(in_channels, width, **options)
        self.fc1 = nn.Linear(self.out_channels, self.out_channels // _REDUCTION)
        self.fc2 = nn.Linear(self.out_channels // _REDUCTION, self.out_channels)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)

    @override
    def residual(self, x: Tensor) -> Tensor:
        out = super().residual(x)
        context = self.fc2(self.relu(self.fc1(out.mean(dim=(2, 3, 4)))))
        out += context[:, :, None, None, None]
        return out


register_resnets("g_p3d", VideoResNet, GlobalContextP3DBlock)
