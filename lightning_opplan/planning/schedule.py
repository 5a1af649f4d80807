"""How the learning rate goes over a training whose length is given beforehand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from lightning_opplan.messages import checked_choice, checked_names

__all__ = ["CONSTANT", "Anneal", "FixedStage", "Shape"]

_WARMUP_START: Final = 0.1  # as in SlowFast's configurations: from 0.01 to 0.1

Shape = Literal["linear", "sqrt", "cosine", "none"]


@dataclass(frozen=True, kw_only=True)
class Anneal:
    """The end of a training, over which the learning rate falls to zero.

    Attributes:
        share: Share of the training's epochs that it takes.
        shape: How the rate falls with the share u of the end that is over: ``"linear"`` 1 − u, ``"sqrt"`` 1 − √u,
            ``"cosine"`` ½ (1 + cos πu); ``"none"`` keeps it constant.
        warmup: Share of the training's epochs at its beginning in which the rate rises linearly, from a tenth, to
            where it would be then.

    References:
        Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024, for 1 − √u.

    Example:
        >>> [Anneal(share=0.5).factor(progress) for progress in (0.0, 0.5, 0.75, 1.0)]
        [1.0, 1.0, 0.5, 0.0]
    """

    share: float = 0.3
    shape: Shape = "linear"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        checked_choice("anneal.shape", self.shape, get_args(Shape))
        if not 0 <= self.warmup < 1:
            raise ValueError(f"`anneal.warmup` must be a share of the epochs below 1, got {self.warmup!r}.")
        if not 0 < self.share <= 1:
            raise ValueError(
                f"`anneal.share` must be a share of the epochs, above 0 and at most 1, got {self.share!r}."
            )

    @classmethod
    def of(cls, content: object) -> "Anneal":
        """Build one from a mapping such as ``{"share": 0.3, "shape": "linear"}``, as files have it."""
        if isinstance(content, Anneal):
            return content
        if not isinstance(content, Mapping):
            raise ValueError(f"`anneal` must be a mapping with `share` and `shape`, got {content!r}.")
        checked_names("anneal", content, ("share", "shape", "warmup"))
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: value for name, value in vars(self).items() if name != "warmup" or value}

    def factor(self, progress: float) -> float:
        """Return what the learning rate is multiplied by.

        Args:
            progress: Share of the whole training that is over, from 0 to 1.
        """
        if progress < self.warmup:
            risen = _WARMUP_START + (1.0 - _WARMUP_START) * progress / self.warmup
            return round(risen * self._fallen(self.warmup), 12)
        return round(self._fallen(progress), 12)

    def _fallen(self, progress: float) -> float:
        if self.shape == "none":
            return 1.0
        over = min(max((progress - (1.0 - self.share)) / self.share, 0.0), 1.0)
        return {
            "linear": 1.0 - over, "sqrt": 1.0 - math.sqrt(over), "cosine": 0.5 * (1.0 + math.cos(math.pi * over)),
        }[self.shape]  # fmt: skip


CONSTANT: Final = Anneal(shape="none")

ANNEAL: Final = "anneal"
"""The key of a state's setting that is not the configuration's: over the state's epochs the rate falls to zero."""


def annealed_state(content: object) -> "AnnealedState":
    """Build what stands under `ANNEAL` in a setting.

    Raises:
        ValueError: If it is not a mapping with what it may have.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"`anneal` of a state must be a mapping such as {{share: 0.3, shape: linear}}, got {content!r}."
        )
    checked_names("anneal", content, ("share", "epochs", "shape"))
    return AnnealedState(**content)


@dataclass(frozen=True, kw_only=True)
class AnnealedState:
    """A state of a graph in which the rate falls to zero; it is trained for given epochs, not up to a knee.

    Attributes:
        share: Its share of all epochs up to its end.
        epochs: Its epochs, in place of a share.
        shape: How the rate falls.
    """

    share: float = 0.3
    epochs: float | None = None
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        Anneal(share=1.0, shape=self.shape)
        if not 0 < self.share < 1:
            raise ValueError(f"`anneal.share` of a state must be above 0 and below 1, got {self.share!r}.")
        if self.epochs is not None and not self.epochs > 0:
            raise ValueError(f"`anneal.epochs` must be above 0, got {self.epochs!r}.")

    def stage(self, before: float) -> "FixedStage":
        """Return how it is trained after so many epochs along the way to it."""
        epochs = self.epochs or max(round(before * self.share / (1 - self.share)), 1)
        return FixedStage(epochs=epochs, offset=0, total=epochs, anneal=Anneal(share=1.0, shape=self.shape))


@dataclass(frozen=True, kw_only=True)
class FixedStage:
    """A part of a training whose epochs are given beforehand.

    Attributes:
        epochs: Epochs to train.
        offset: Epochs of the training before it.
        total: Epochs of the whole training.
        anneal: How the learning rate falls over the whole training; otherwise it is what the setting says.
        value: What the state counts as, if it is not to be validated.
    """

    epochs: float
    offset: float
    total: float
    anneal: Anneal = field(default=CONSTANT)
    value: float | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the learning rate is what the setting says, all the time."""
        return self.rate_factor(0.0) == self.rate_factor(self.epochs) == 1.0

    def rate_factor(self, epoch: float) -> float:
        """Return what the learning rate is multiplied by after `epoch` epochs of the stage.

        Example:
            >>> FixedStage(epochs=5, offset=5, total=10, anneal=Anneal(share=1.0, shape="cosine")).rate_factor(0.0)
            0.5
        """
        return self.anneal.factor((self.offset + epoch) / self.total)
