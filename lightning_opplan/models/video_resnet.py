"""The skeleton that the paper's 3D ConvNets share: one stem, four stages of residual blocks, a classifier.

What sets a network apart is how the 3×3 convolutions of its blocks see time. The file of each paper holds that alone.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 4 and Figure 3.
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from lightning_opplan.inputs import Shape
from lightning_opplan.models.layers import PointwiseConv3d, averaged, checkpointed, downsampling, initialise, scored
from lightning_opplan.models.network import ScoringNetwork
from lightning_opplan.models.weights import fitted, inflated, unwrapped

__all__ = ["BOTTLENECKS", "DEPTHS", "ResidualBlock", "Stage", "VideoNetwork", "VideoResNet"]

DEPTHS: Final = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Blocks per stage (He et al., Table 1)."""

BOTTLENECKS: Final = ("resnet50", "resnet101", "resnet152")
_EXPANSION: Final = 4  # output channels of a bottleneck per unit of its width


class ResidualBlock(nn.Module, ABC):
    """A basic block or a bottleneck whose 3×3 convolutions are left to the subclass.

    The number in the name of a convolution and of its batch normalisation is that of torchvision's ResNet: 1 and 2 in
    a basic block; in a bottleneck 2 alone, between the pointwise 1 and 3.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3×3 convolutions.
        index: Number of the block in the network, from 0.
        spatial_stride: Stride of the block in height and width.
        bottleneck: Whether it is a bottleneck, whose output has four times as many channels as its width.
    """

    def __init__(self, in_channels: int, width: int, *, index: int, spatial_stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.index, self.bottleneck = index, bottleneck
        self.out_channels = width * (_EXPANSION if bottleneck else 1)
        if bottleneck:
            self.conv1: nn.Conv3d = PointwiseConv3d(in_channels, width)
            self.bn1 = nn.BatchNorm3d(width)
            self.add_convolution(2, width, width, spatial_stride)
            self.bn2 = nn.BatchNorm3d(width)
            self.conv3 = PointwiseConv3d(width, self.out_channels)
            self.bn3 = nn.BatchNorm3d(self.out_channels)
        else:
            self.add_convolution(1, in_channels, width, spatial_stride)
            self.bn1 = nn.BatchNorm3d(width)
            self.add_convolution(2, width, width, 1)
            self.bn2 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsampling(in_channels, self.out_channels, spatial_stride)

    @property
    def in_series(self) -> bool:
        """Whether a temporal convolution follows the spatial one, or else is added to it."""
        return True

    @abstractmethod
    def add_convolution(self, number: int, in_channels: int, out_channels: int, spatial_stride: int) -> None:
        """Add the modules of the 3×3 convolution of this number, ``conv<number>`` and whatever goes with it."""

    def convolve(self, number: int, x: Tensor) -> Tensor:
        """Run the 3×3 convolution of this number with its batch normalisation, before the ReLU."""
        return self.layer(f"bn{number}", self.layer(f"conv{number}", x))

    def residual(self, x: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to what is added to the shortcut: ``(B, out_channels, T, ⌈H/s⌉, ⌈W/s⌉)``."""
        if not self.bottleneck:
            return self.convolve(2, self.relu(self.convolve(1, x)))
        inner = self.relu(self.convolve(2, self.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.bn3(self.conv3(inner))
        return out

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the input, projected where channels or stride ask for it."""
        return x if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to ``(B, out_channels, T, ⌈H/s⌉, ⌈W/s⌉)``."""
        out = self.residual(x)
        out += self.shortcut(x)
        activated: Tensor = self.relu(out)
        return activated

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Run the layer of this name."""
        out: Tensor = self.get_submodule(name)(x)
        return out


class Stage(nn.Sequential):
    """Residual blocks one after the other.

    Args:
        blocks: Modules whose output is the input of the next one.
        activation_checkpointing: Keep only the inputs of each block for the backward pass, and compute the rest again.
    """

    def __init__(self, *blocks: Any, activation_checkpointing: bool = False) -> None:
        super().__init__(*blocks)
        self.activation_checkpointing = activation_checkpointing

    @override
    def forward(self, input: Any) -> Any:
        """Run the blocks."""
        for block in self:
            input = checkpointed(block, input) if self.activation_checkpointing and self.training else block(input)
        return input


class VideoNetwork(ScoringNetwork):
    """What every network of the package can do beside: take weights of image networks.

    Attributes:
        heads: Names of the classifiers.
        stems: Names of the convolutions that see the clip.
        backbone: Name of the image network of the same depth in torchvision, or ``None`` if there is none.
        in_channels: Channels of the clips.
        min_frames: Frames of the shortest clip.
        min_size: Height and width in px of the smallest clip.
    """

    heads: ClassVar[tuple[str, ...]] = ("fc",)
    stems: ClassVar[tuple[str, ...]] = ("conv1",)

    def __init__(self, *, backbone: str | None, in_channels: int, min_frames: int, min_size: int) -> None:
        super().__init__()
        self.backbone, self.in_channels = backbone, in_channels
        self.min_frames, self.min_size = min_frames, min_size

    @abstractmethod
    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Score clips with each head, the temporal one first.

        Args:
            inputs: Clips ``(B, C, T, H, W)``, normalised.

        Returns:
            One tensor ``(B, num_classes)``, at least float32, per head.

        Raises:
            ValueError: If the clips have too few frames or pixels.
        """

    @override
    def check_shape(self, shape: Shape) -> None:
        self.check_clips(torch.empty((1, *shape), device="meta"))

    def image_name(self, name: str) -> str | None:
        """Return the name in torchvision's ResNet of what a module starts from, ``None`` if there is no such."""
        return name

    def load_image_weights(self, state: Mapping[str, Tensor]) -> None:
        """Start from an image network of the same depth; the classifiers stay as they are.

        Args:
            state: State dictionary of torchvision's ResNet.

        Raises:
            ValueError: If it is of another depth or width; nothing has been changed then.
        """
        inflation, notes = inflated(self, state, image_name=self.image_name, stems=self.stems)
        self.load_state_dict(inflation)
        rank_zero_info(f"Started from an image network; {' and '.join(self.heads)} start at random.")
        for note in notes:
            rank_zero_info(note)

    @override
    def load_release_weights(self, state: Mapping[str, Any]) -> None:
        """Take over weights under the key names of the authors' checkpoints, strictly.

        A classifier for another number of classes is left out and stays as it is, an RGB stem that meets another
        number of channels is averaged over them; the log says so.

        Args:
            state: A state dictionary, or a checkpoint with one under ``"model"``, whose keys may start with
                ``"module."``.

        Raises:
            ValueError: If keys are missing or left over, or shapes differ; nothing has been changed then.
        """
        fitting, notes = fitted(unwrapped(state), self.state_dict(), heads=self.heads, stems=self.stems)
        self.load_state_dict(fitting)
        for note in notes:
            rank_zero_info(note)

    @override
    def to_channels_last(self) -> Self:
        """Move to the channels-last memory format, in which most convolutions are quicker, and return the network.

        Like ``.to(memory_format=torch.channels_last_3d)``, except that kernels of one position stay as they are. For
        them both formats are the same but for their strides, which gradients would not match.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and max(module.kernel_size) > 1:
                module.to(memory_format=torch.channels_last_3d)
        return self

    def check_clips(self, clips: Tensor) -> None:
        """Raise a `ValueError` that names the smallest clip unless clips are ``(B, C, T, H, W)`` and large enough."""
        if (
            clips.ndim != 5
            or clips.shape[1] != self.in_channels
            or clips.shape[2] < self.min_frames
            or min(clips.shape[3:]) < self.min_size
        ):
            raise ValueError(
                f"`clips` must have the shape (B, C, T, H, W) with T ≥ {self.min_frames} frames, H, W ≥ "
                f"{self.min_size} px and C = {self.in_channels} channels (`in_channels`), got {tuple(clips.shape)}."
            )


class VideoResNet(VideoNetwork):
    """A residual network for clips with a single head.

    The stem sees four frames at once and moves by four, so a clip of T frames has ⌊T/4⌋ steps in time from there on.

    Args:
        block: Class of the residual blocks.
        depths: Blocks in each of the four stages.
        num_classes: Scores per head.
        bottleneck: Whether the blocks are bottlenecks.
        backbone: Name of the image network of the same depth in torchvision.
        in_channels: Channels of the clip: 3 for RGB, 2 for optical flow.
        dropout: Probability of dropping a feature before each classifier.
        width: Channels of the stem and width of the first stage; doubled by every further stage.
        stem_size: Height and width of the stem's kernel in pixels.
        min_size: Height and width in px of the smallest clip.
        activation_checkpointing: Keep only the inputs of each block for the backward pass, and compute the rest again.

    References:
        Figure 3. Module names follow torchvision's ResNet and the released implementation.
    """

    def __init__(
        self,
        block: type[ResidualBlock],
        *,
        depths: Sequence[int],
        num_classes: int,
        bottleneck: bool = True,
        backbone: str | None = None,
        in_channels: int = 3,
        dropout: float = 0.5,
        width: int = 64,
        stem_size: int = 7,
        min_size: int = 64,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(backbone=backbone, in_channels=in_channels, min_frames=4, min_size=min_size)
        self._block, self._depths, self._width, self._bottleneck = block, tuple(depths), width, bottleneck
        self._activation_checkpointing = activation_checkpointing
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
        self.layer1 = self.make_stage(0, spatial_stride=1)
        self.layer2 = self.make_stage(1, spatial_stride=2)
        self.layer3 = self.make_stage(2, spatial_stride=2)
        self.layer4 = self.make_stage(3, spatial_stride=2)
        self.dropout = nn.Dropout(dropout)
        self.num_features = self._out_channels(3)
        self.fc = nn.Linear(self.num_features, num_classes)
        initialise(self)

    @property
    @override
    def stages(self) -> tuple[tuple[str, ...], ...]:
        return (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.classify(self.fc, self.layer4(self.trunk(inputs))),)

    def make_stage(self, number: int, *, spatial_stride: int) -> Stage:
        """Make the blocks of a stage, 0 to 3, whose first one has this stride in height and width."""
        before = self._width if number == 0 else self._out_channels(number - 1)
        first = sum(self._depths[:number])
        blocks = [
            self._block(
                before if position == 0 else self._out_channels(number),
                self._width * 2**number,
                index=first + position,
                spatial_stride=spatial_stride if position == 0 else 1,
                bottleneck=self._bottleneck,
            )
            for position in range(self._depths[number])
        ]
        return Stage(*blocks, activation_checkpointing=self._activation_checkpointing)

    def stem(self, clips: Tensor) -> Tensor:
        """Map clips ``(B, C, T, H, W)`` to ``(B, width, ⌊T/4⌋, ⌈H/4⌉, ⌈W/4⌉)``."""
        self.check_clips(clips)
        out: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(clips))))
        return out

    def trunk(self, clips: Tensor) -> Tensor:
        """Run the stem and the first three stages: ``(B, C', ⌊T/4⌋, ⌈H/16⌉, ⌈W/16⌉)``."""
        out: Tensor = self.layer3(self.layer2(self.layer1(self.stem(clips))))
        return out

    def classify(self, classifier: nn.Linear, features: Tensor) -> Tensor:
        """Average features ``(B, C, T, H, W)`` over time and space and score them: ``(B, num_classes)``."""
        return scored(classifier, self.dropout(averaged(features)))

    def _out_channels(self, number: int) -> int:
        width: int = self._width * 2**number
        return width * (_EXPANSION if self._bottleneck else 1)
