"""Convolutions that the networks share, their first weights and last scores, and activation checkpointing.

Parameters, names and results are those of `torch.nn.Conv3d`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

__all__ = [
    "PointwiseConv3d",
    "SpatialConv3d",
    "TemporalConv3d",
    "averaged",
    "checkpointed",
    "downsampling",
    "initialise",
    "scored",
]


class PointwiseConv3d(nn.Conv3d):
    """A 1×1×1 convolution without bias; in the channels-last format one matrix product, which is quicker.

    Not when compiled: there the product costs more in the kernels around it than it saves.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        spatial_stride: Stride in height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride=(1, spatial_stride, spatial_stride), bias=False)

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Map ``(B, C, T, H, W)`` to ``(B, C', T, ⌈H/stride⌉, ⌈W/stride⌉)``."""
        if torch.compiler.is_compiling() or not input.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(input)
        stride = self.stride[-1]
        positions = input.permute(0, 2, 3, 4, 1)
        if stride > 1:
            positions = positions[:, :, ::stride, ::stride]
        return functional.linear(positions, self.weight.flatten(1)).permute(0, 4, 1, 2, 3)


class SpatialConv3d(nn.Conv3d):
    """A 1×3×3 convolution without bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride in height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        )


class TemporalConv3d(nn.Conv3d):
    """A 3×1×1 convolution without bias.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        spatial_stride: Stride in height and width.
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_stride: int = 1) -> None:
        stride = (1, spatial_stride, spatial_stride)
        super().__init__(in_channels, out_channels, (3, 1, 1), stride=stride, padding=(1, 0, 0), bias=False)


def downsampling(in_channels: int, out_channels: int, spatial_stride: int) -> nn.Sequential | None:
    """Return the projection of a block's shortcut, or ``None`` where the shortcut is the identity."""
    if in_channels == out_channels and spatial_stride == 1:
        return None
    return nn.Sequential(PointwiseConv3d(in_channels, out_channels, spatial_stride), nn.BatchNorm3d(out_channels))


def checkpointed(block: nn.Module, *inputs: Any, run: Callable[..., Any] | None = None, draws: bool = False) -> Any:
    """Run a block, keep only its inputs for the backward pass, and compute the rest again there.

    The second run leaves the statistics of batch normalisation alone, so that training goes as without.

    Args:
        block: The block.
        inputs: What it is called with.
        run: What is called, if not the block itself.
        draws: Whether it draws random numbers, which the second run then draws again.
    """
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": draws}
    if not torch.compiler.is_compiling():  # the compiler drops the second update by itself
        options["context_fn"] = lambda: (nullcontext(), _StatisticsLeftAlone(block))
    return checkpoint(run or block, *inputs, **options)


class _StatisticsLeftAlone:
    """Keeps batch normalisation from updating its statistics; can be entered again, for a second backward pass."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._layers: list[tuple[_BatchNorm, float | None]] = []

    def __enter__(self) -> None:
        layers = [layer for layer in self._module.modules() if isinstance(layer, _BatchNorm) and layer.training]
        self._layers = [(layer, layer.momentum) for layer in layers]
        for layer in layers:
            layer.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for layer, momentum in self._layers:
            layer.momentum = momentum
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked -= 1


def averaged(features: Tensor) -> Tensor:
    """Average features ``(B, C, T, H, W)`` over time and space in at least float32: ``(B, C)``."""
    return features.mean(dim=(2, 3, 4), dtype=torch.promote_types(features.dtype, torch.float32))


def scored(classifier: nn.Linear, features: Tensor) -> Tensor:
    """Score features ``(B, C)`` without rounding to bfloat16 under autocast, which would tie the top scores."""
    device = features.device.type
    with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):  # it has no autocast
        scores: Tensor = classifier(features.to(classifier.weight.dtype))
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def initialise(network: nn.Module) -> None:
    """Draw the kernels as ResNets do (He et al., "Delving Deep into Rectifiers", ICCV 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
