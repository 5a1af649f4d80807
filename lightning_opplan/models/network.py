"""What every network can do, of whatever library: score, say what it takes, and say which parts lie how deep."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from lightning_opplan.inputs import Preprocessing, Shape

__all__ = ["ScoringNetwork", "Takes", "numbered", "whole_modules"]

Takes = Literal["clips", "images"]


class ScoringNetwork(nn.Module, ABC):
    """A network that scores classes.

    Attributes:
        takes: What it scores.
        preprocessing: What its inputs were meant to be; ``None`` if it is said nowhere.
        options: Options, beside those that it was asked for with, that make the same network without its weights.
    """

    takes: Takes = "clips"
    preprocessing: Preprocessing | None = None
    options: Mapping[str, Any] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Score clips or images.

        Args:
            inputs: Clips ``(B, C, T, H, W)`` or images ``(B, C, H, W)``, normalised.

        Returns:
            ``(B, num_classes)``: the mean of the heads' scores, before any softmax.
        """
        return self.fuse(self.forward_heads(inputs))

    @staticmethod
    def fuse(heads: Sequence[Tensor]) -> Tensor:
        """Average the scores ``(B, num_classes)`` of the heads."""
        return heads[0] if len(heads) == 1 else torch.stack(tuple(heads)).mean(dim=0)

    @abstractmethod
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Score with each head.

        Returns:
            One tensor ``(B, num_classes)``, at least float32, per head.

        Raises:
            ValueError: If the network does not take such inputs.
        """

    @abstractmethod
    def check_shape(self, shape: Shape) -> None:
        """Raise a `ValueError` that says what the network takes, if it does not take inputs of a shape."""

    @abstractmethod
    def load_release_weights(self, state: Mapping[str, Any]) -> None:
        """Take over weights, strictly but for a classifier of other classes."""

    @abstractmethod
    def to_channels_last(self) -> Self:
        """Move to the channels-last memory format, and return the network."""

    @property
    @abstractmethod
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """What lies how deep, from the stem on: names of modules or parameters. What is not named is the head."""


def numbered(network: ScoringNetwork) -> dict[str, int]:
    """Return the number of the stage that every parameter is of, from 0; the head has the highest.

    Example:
        >>> from lightning_opplan.models import get_model
        >>> numbers = numbered(get_model("dg_p3d_tiny", num_classes=2))
        >>> numbers["conv1.weight"], numbers["layer4_dual.0.bn1.bias"], numbers["fc.weight"]
        (0, 4, 5)
    """
    stages = network.stages
    found = {part: number for number, parts in enumerate(stages) for part in parts}

    def number(name: str) -> int:
        part = name
        while part:
            if part in found:
                return found[part]
            part = part.rpartition(".")[0]
        return len(stages)

    return {name: number(name) for name, _ in network.named_parameters()}


def whole_modules(network: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """Return the largest modules that have parameters, and none but the named ones, and the dropout before them."""
    known, found = set(names), []

    def visit(module: nn.Module, prefix: str) -> None:
        own = [name for name, _ in module.named_parameters(prefix=prefix)]
        if not own:
            return
        if known.issuperset(own):
            found.append(module)
            return
        for name, child in module.named_children():
            visit(child, f"{prefix}.{name}" if prefix else name)

    visit(network, "")
    # Dropout has no parameters to be known by: it belongs to what comes after it.
    waiting: list[nn.Module] = []
    for name, module in network.named_modules():
        own_names = {f"{name}.{each}" if name else each for each, _ in module.named_parameters(recurse=False)}
        if isinstance(module, _DropoutNd):
            waiting.append(module)
        elif own_names:
            found += waiting if own_names <= known else []
            waiting = []
    return found
