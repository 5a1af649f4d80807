"""What a training came to."""

from dataclasses import dataclass

from lightning_opplan.planning.knee import Point

__all__ = ["Trained"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        points: Epoch and value of the validations.
        value: What the kept weights are worth; ``None`` if the training diverged.
        standard_error: Of the value, where something was fitted.
        epoch: The epoch of the weights.
        checkpoint: Checkpoint of that epoch.
        reason: One sentence on why it ended.
        is_paused: Whether it has not ended, and is to go on later.
        unlearned: What predicting the frequencies of the classes is worth, where it was measured.
    """

    points: tuple[Point, ...]
    value: float | None = None
    standard_error: float | None = None
    epoch: float = 0
    checkpoint: str | None = None
    reason: str | None = None
    is_paused: bool = False
    unlearned: float | None = None
