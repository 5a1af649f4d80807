"""The trainings that a human would try: the grid that the paper compares its planning with.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.3, Tables 3 and 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from lightning_opplan.planning.graph import Axis, Setting
from lightning_opplan.planning.schedule import CONSTANT, Anneal, FixedStage

__all__ = ["EPOCHS", "Decay", "HandTuned", "hand_tuned_trainings", "training_table"]

Decay = Literal["step", "cosine"]

EPOCHS: Final = (128, 192, 256, 320, 384)
"""Epochs of a whole training that the paper's grid tries (section 5.3)."""


_COSINE: Final = Anneal(share=1.0, shape="cosine")


@dataclass(frozen=True, kw_only=True)
class HandTuned:
    """One training of the grid.

    Attributes:
        branch: The branch, empty if there are none.
        steps: Positions on the first axis that it goes through, from 1: ``(1, 3)`` is the paper's l1 → l3.
        decay: ``"cosine"`` lets the learning rate fall along half a cosine over the whole training; with ``"step"``
            it is what the settings say.
        epochs: Epochs of the whole training.
        stages: Settings and epochs, in order.
    """

    branch: str
    steps: tuple[int, ...]
    decay: Decay
    epochs: int
    stages: tuple[tuple[Setting, FixedStage], ...]

    @property
    def name(self) -> str:
        """A name that no other training of the grid has."""
        parts = [self.branch, "→".join(map(str, self.steps)), self.decay, str(self.epochs)]
        return " ".join(part for part in parts if part)


def hand_tuned_trainings(
    *, axes: Sequence[Axis], branches: Mapping[str, Setting] | None = None, epochs: Sequence[int] = EPOCHS
) -> tuple[HandTuned, ...]:
    """Return the grid: every way along the first axis, with both decays, in all branches and for all epochs.

    The first axis is what the paper calls clip length: training goes from its first or second setting to its last, or
    through all of them, with the same number of epochs for each. The last axis is the learning rate: as many equal
        steps as
    it has settings (the paper's three), or a cosine from the first of them to zero, over the whole training. Axes
    between them keep their last setting. With the paper's three lengths and two samplings these are 60 trainings.

    Args:
        axes: Axes of the plan.
        branches: Branches of the plan.
        epochs: Epochs of the whole training to try.

    Raises:
        ValueError: If there is one axis only, or a number of epochs is too small for all stages.
    """
    if len(axes) < 2:
        raise ValueError(
            "`axes` must hold at least two for a hand-tuned grid, what is stepped through first and the learning rate "
            f"last, got {[axis.name for axis in axes]!r}."
        )
    first, *middle, rate = axes
    last = len(first.settings)
    ways: list[tuple[int, ...]] = [(1, last), (2, last), tuple(range(1, last + 1))]
    ways = [way if way[0] < last else (last,) for way in ways if way[0] <= last]
    ways = list(dict.fromkeys(ways))
    fixed = {key: value for axis in middle for key, value in axis.settings[-1].items()}
    decays: tuple[Decay, ...] = ("step", "cosine")
    trainings = []
    for branch, own in (branches or {"": {}}).items():
        for steps in ways:
            for decay in decays:
                for total in epochs:
                    if total < len(steps) * len(rate.settings):
                        raise ValueError(
                            f"`epochs` must be at least {len(steps) * len(rate.settings)}, one for each stage, "
                            f"got {total!r}."
                        )
                    stages = tuple(
                        ({**own, **first.settings[steps[length] - 1], **fixed, **rate.settings[level]}, stage)
                        for length, level, stage in _stages(len(steps), len(rate.settings), total, decay)
                    )
                    trainings.append(HandTuned(branch=branch, steps=steps, decay=decay, epochs=total, stages=stages))
    return tuple(trainings)


def training_table(trainings: Sequence[HandTuned]) -> dict[str, Any]:
    """Return the trainings as plain JSON values, by name: what a report needs to tell them apart."""
    return {
        training.name: {
            "branch": training.branch, "steps": list(training.steps), "decay": training.decay,
            "epochs": training.epochs,
        }
        for training in trainings
    }  # fmt: skip


def _stages(num_lengths: int, num_rates: int, total: int, decay: Decay) -> list[tuple[int, int, FixedStage]]:
    """Index on the first axis, index of the rate, and epochs of every part with both unchanged."""
    num_levels = num_rates if decay == "step" else 1
    length_ends = [round(total * (index + 1) / num_lengths) for index in range(num_lengths)]
    rate_ends = [round(total * (index + 1) / num_levels) for index in range(num_levels)]
    stages = []
    begin = 0
    for end in sorted({*length_ends, *rate_ends}):
        length = next(index for index, limit in enumerate(length_ends) if end <= limit)
        level = next(index for index, limit in enumerate(rate_ends) if end <= limit)
        anneal = CONSTANT if decay == "step" else _COSINE
        stages.append((length, level, FixedStage(epochs=end - begin, offset=begin, total=total, anneal=anneal)))
        begin = end
    return stages
