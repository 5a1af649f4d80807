"""LGD-3D: local and global diffusion beside the blocks of P3D.

References:
    Qiu et al., "Learning Spatio-Temporal Representation with Local and Global Diffusion", CVPR 2019.
    The variant with this stem is the one of Qiu et al., ICML 2021, Table 4.
"""

from typing import Any, ClassVar, Final

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from lightning_opplan.models.layers import scored
from lightning_opplan.models.p3d import P3DBlock
from lightning_opplan.models.registry import register_resnets
from lightning_opplan.models.video_resnet import VideoResNet

__all__ = ["DiffusionP3DBlock", "DiffusionVideoResNet"]

_REDUCTION: Final = 16  # width C/16 inside each pair of linear layers


class DiffusionP3DBlock(P3DBlock):
    """A P3D block with a global vector g beside the local path x.

    g' = ReLU(W₁ mean(x) + W₂ g), and W₃ g' is added to the residual; each W is a pair of linear layers with nothing
    between them. W₃ starts at zero.
    """

    def __init__(self, in_channels: int, width: int, **options: Any) -> None:
        super().__init__(in_channels, width, **options)
        between, out_channels = self.out_channels // _REDUCTION, self.out_channels
        self.fc1, self.fc2 = nn.Linear(in_channels, between), nn.Linear(between, out_channels)
        self.fc3, self.fc4 = nn.Linear(in_channels, between), nn.Linear(between, out_channels)
        self.fc5, self.fc6 = nn.Linear(out_channels, between), nn.Linear(between, out_channels)
        nn.init.zeros_(self.fc6.weight)
        nn.init.zeros_(self.fc6.bias)

    @override
    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map x ``(B, C, T, H, W)`` and g ``(B, C)`` to ``(B, C', T, ⌈H/s⌉, ⌈W/s⌉)`` and ``(B, C')``."""
        x, g = inputs
        g = functional.relu(self.fc2(self.fc1(x.mean(dim=(2, 3, 4)))) + self.fc4(self.fc3(g)))
        out = self.residual(x)
        out += self.shortcut(x)
        out += self.fc6(self.fc5(g))[:, :, None, None, None]
        return self.relu(out), g


class DiffusionVideoResNet(VideoResNet):
    """A residual network with a global path and, in training, a classifier of its own for that path.

    The scores of the global path help to train; evaluation leaves them out, as the released implementation does.

    Args:
        block: Class of the residual blocks.
        num_classes: Scores per head.
        options: Those of `VideoResNet`.
    """

    heads: ClassVar[tuple[str, ...]] = ("fc", "fc_g")

    def __init__(self, block: type[DiffusionP3DBlock], *, num_classes: int, **options: Any) -> None:
        super().__init__(block, num_classes=num_classes, **options)
        self.fc_g = nn.Linear(self.num_features, num_classes)

    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Score clips ``(B, C, T, H, W)`` by the local path and, in training, by the global one."""
        x = self.stem(inputs)
        x, g = self.layer4(self.layer3(self.layer2(self.layer1((x, x.mean(dim=(2, 3, 4)))))))
        local = self.classify(self.fc, x)
        return (local, scored(self.fc_g, self.dropout(g))) if self.training else (local,)


register_resnets("lgd_p3d", DiffusionVideoResNet, DiffusionP3DBlock)
