"""SlowFast: a slow pathway for what is seen beside a fast and thin one for how it moves.

References:
    Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, section 3 and Table 1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_opplan.models.layers import SpatialConv3d, TemporalConv3d, averaged, initialise, scored
from lightning_opplan.models.registry import register
from lightning_opplan.models.video_resnet import DEPTHS, ResidualBlock, Stage, VideoNetwork

__all__ = ["SlowFast", "SlowFastBlock"]

_WIDTH: Final = 64
_BETA_INVERSE: Final = 8  # 1/β: how much thinner the fast pathway is (section 3.2)
_TEMPORAL_BLOCKS: Final = DEPTHS["resnet50"]
"""Blocks of each stage that see time. Deeper networks have no more of them: only so do the published 106 GFLOPs of
ResNet-101 8×8, and 213 of 16×8, come out."""


class SlowFastBlock(ResidualBlock):
    """A bottleneck of 1×3×3 whose first convolution is 3×1×1 if it sees time, else 1×1×1."""

    def __init__(self, in_channels: int, width: int, *, temporal: bool, **options: Any) -> None:
        super().__init__(in_channels, width, bottleneck=True, **options)
        if temporal:
            self.conv1 = TemporalConv3d(in_channels, width)

    @override
    def add_convolution(self, number: int, in_channels: int, out_channels: int, spatial_stride: int) -> None:
        self.add_module(f"conv{number}", SpatialConv3d(in_channels, out_channels, spatial_stride))


class Pathway(nn.Module):
    """A stem and four stages.

    Args:
        stem: The first convolution.
        width: Channels of the stem and width of the first stage.
        depths: Blocks in each stage.
        temporal: For each stage, whether its first blocks see time.
        lateral: Channels that come from the other pathway, per channel of the input of a stage.
        activation_checkpointing: See `SlowFast`.
    """

    def __init__(
        self,
        stem: nn.Conv3d,
        *,
        width: int,
        depths: Sequence[int],
        temporal: Sequence[bool],
        lateral: float,
        activation_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.conv1 = stem
        self.bn1 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        channels = width
        for number, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if number > 0 and position == 0 else 1
                in_channels = channels + int(channels * lateral) if position == 0 else channels
                blocks.append(
                    SlowFastBlock(
                        in_channels,
                        width * 2**number,
                        temporal=temporal[number] and position < _TEMPORAL_BLOCKS[number],
                        index=position,
                        spatial_stride=stride,
                    )
                )
                channels = blocks[-1].out_channels
            self.add_module(f"layer{number + 1}", Stage(*blocks, activation_checkpointing=activation_checkpointing))
        self.out_channels = channels

    def stem(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, C, T, H, W)`` to ``(B, width, T, ⌈H/4⌉, ⌈W/4⌉)``."""
        out: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        return out

    def stage(self, number: int) -> nn.Module:
        """Return a stage, 1 to 4."""
        return self.get_submodule(f"layer{number}")


class SlowFast(VideoNetwork):
    """SlowFast without non-local blocks.

    The fast pathway sees all T frames, the slow one every α-th. The paper's 8×8 is α = 4 and its 4×16 is α = 8, both
    on clips of 32 frames, every second one of 64. After the stem and each of the first three stages, a strided
    convolution in time carries the fast pathway's features over (section 3.3).

    Args:
        depths: Blocks in each of the four stages.
        num_classes: Number of scores.
        alpha: Frames of the fast pathway per frame of the slow one.
        lateral_frames: Frames that a convolution between the pathways sees; odd. By default 5, as in the paper's
            Table 1, but 7 in ResNet-50 8×8, whose published GFLOPs are those of 7.
        backbone: Name of the image network of the same depth in torchvision; the slow pathway can start from it.
        in_channels: Channels of the clip: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before the classifier.
        activation_checkpointing: Keep only the inputs of each block for the backward pass, and compute the rest again.

    Raises:
        ValueError: If `alpha` is no positive integer or `lateral_frames` not odd.
    """

    stems: ClassVar[tuple[str, ...]] = ("slow.conv1", "fast.conv1")

    def __init__(
        self,
        *,
        depths: Sequence[int],
        num_classes: int,
        alpha: int = 4,
        lateral_frames: int | None = None,
        backbone: str | None = None,
        in_channels: int = 3,
        dropout: float = 0.5,
        activation_checkpointing: bool = False,
    ) -> None:
        if not isinstance(alpha, int) or alpha < 1:
            raise ValueError(f"`alpha` must be a positive integer, got {alpha!r}: 4 for 8×8, 8 for 4×16.")
        if lateral_frames is None:
            lateral_frames = 7 if (backbone, alpha) == ("resnet50", 4) else 5
        if lateral_frames < 1 or lateral_frames % 2 == 0:
            raise ValueError(f"`lateral_frames` must be odd, got {lateral_frames!r}.")
        super().__init__(backbone=backbone, in_channels=in_channels, min_frames=alpha, min_size=64)
        self.alpha = alpha
        thin = _WIDTH // _BETA_INVERSE
        common: dict[str, Any] = {"depths": depths, "activation_checkpointing": activation_checkpointing}
        slow_stem = nn.Conv3d(in_channels, _WIDTH, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
        slow_time = (False, False, True, True)
        self.slow = Pathway(slow_stem, width=_WIDTH, temporal=slow_time, lateral=2 / _BETA_INVERSE, **common)
        fast_stem = nn.Conv3d(in_channels, thin, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False)
        self.fast = Pathway(fast_stem, width=thin, temporal=(True, True, True, True), lateral=0, **common)
        carried = (thin, *(thin * 4 * 2**number for number in range(3)))
        self.lateral = nn.ModuleList(_lateral(channels, alpha, lateral_frames) for channels in carried)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.slow.out_channels + self.fast.out_channels, num_classes)
        initialise(self)

    @property
    @override
    def stages(self) -> tuple[tuple[str, ...], ...]:
        # A convolution between the pathways goes with what it carries over.
        stem = ("slow.conv1", "slow.bn1", "fast.conv1", "fast.bn1", "lateral.0")
        return (stem, *((f"slow.layer{n}", f"fast.layer{n}", f"lateral.{n}") for n in range(1, 5)))

    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        self.check_clips(inputs)
        slow, fast = self.slow.stem(inputs[:, :, :: self.alpha]), self.fast.stem(inputs)
        for number, lateral in enumerate(self.lateral, start=1):
            slow = torch.cat([slow, lateral(fast)], dim=1)
            slow = self.slow.stage(number)(slow)
            fast = self.fast.stage(number)(fast)
        return (scored(self.fc, self.dropout(torch.cat([averaged(slow), averaged(fast)], dim=1))),)

    @override
    def image_name(self, name: str) -> str | None:
        return name.removeprefix("slow.") if name.startswith("slow.") else None


def _lateral(channels: int, alpha: int, num_frames: int) -> nn.Sequential:
    convolution = nn.Conv3d(
        channels,
        channels * 2,
        (num_frames, 1, 1),
        stride=(alpha, 1, 1),
        padding=(num_frames // 2, 0, 0),
        bias=False,
    )
    return nn.Sequential(convolution, nn.BatchNorm3d(channels * 2), nn.ReLU(inplace=True))


for _backbone in ("resnet50", "resnet101"):
    register(f"slowfast_{_backbone}")(partial(SlowFast, depths=DEPTHS[_backbone], backbone=_backbone))
