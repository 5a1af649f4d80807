"""DG-P3D: G-P3D with two heads, one for time and one for space.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4 and Figure 3.
"""

from functools import partial
from typing import Any, ClassVar, Final

from torch import Tensor, nn
from typing_extensions import override

from lightning_opplan.models.g_p3d import GlobalContextP3DBlock
from lightning_opplan.models.layers import initialise
from lightning_opplan.models.registry import register, register_resnets
from lightning_opplan.models.video_resnet import ResidualBlock, VideoResNet

__all__ = ["DualHeadVideoResNet"]

_POOLED_STEPS: Final = 4


class DualHeadVideoResNet(VideoResNet):
    """A residual network whose last stage exists twice.

    The temporal head keeps the steps in time and halves the space; the spatial head keeps the space and takes the
    maximum over four steps in time, so that a clip has at least 16 frames. The scores of both are averaged.

    Args:
        block: Class of the residual blocks.
        num_classes: Scores per head.
        options: Those of `VideoResNet`.
    """

    heads: ClassVar[tuple[str, ...]] = ("fc", "fc_dual")

    def __init__(self, block: type[ResidualBlock], *, num_classes: int, **options: Any) -> None:
        super().__init__(block, num_classes=num_classes, **options)
        self.min_frames *= _POOLED_STEPS
        self.frame_pool = nn.MaxPool3d((_POOLED_STEPS, 1, 1), stride=(_POOLED_STEPS, 1, 1))
        self.layer4_dual = self.make_stage(3, spatial_stride=1)
        self.fc_dual = nn.Linear(self.num_features, num_classes)
        initialise(self.layer4_dual)

    @property
    @override
    def stages(self) -> tuple[tuple[str, ...], ...]:
        return (*super().stages[:-1], ("layer4", "layer4_dual"))

    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        x = self.trunk(inputs)
        temporal, spatial = self.layer4(x), self.layer4_dual(self.frame_pool(x))
        return self.classify(self.fc, temporal), self.classify(self.fc_dual, spatial)

    @override
    def image_name(self, name: str) -> str | None:
        return name.replace("layer4_dual", "layer4")


register_resnets("dg_p3d", DualHeadVideoResNet, GlobalContextP3DBlock)

# One block per stage, 8 channels in the stem: small enough for a CPU and clips of 32 px.
register("dg_p3d_tiny")(
    partial(
        DualHeadVideoResNet, GlobalContextP3DBlock, depths=(1, 1, 1, 1), width=8, stem_size=5, min_size=32, dropout=0.0
    )
)
