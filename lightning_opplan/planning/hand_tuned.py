"""The trainings that a human would try: the grid that the paper compares its planning with.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, section 5.3, Tables 3, 4 and 5.
    Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, for the cosine with a warm-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.graph import Axis, Setting
from lightning_opplan.planning.multigrid import Phase, phases
from lightning_opplan.planning.schedule import CONSTANT, Anneal, FixedStage
from lightning_opplan.planning.space import is_rate

__all__ = ["EPOCHS", "PAPER_DECAYS", "SHAPE_KEYS", "Decay", "HandTuned", "hand_tuned_trainings", "training_table"]

Decay = Literal["step", "cosine", "warmup_cosine", "multigrid"]

PAPER_DECAYS: Final[tuple[Decay, ...]] = ("step", "cosine")
"""What the paper's grid tries."""

SHAPE_KEYS: Final = ("data.clip_length", "data.crop_size", "data.short_side", "data.batch_size")
"""What `"multigrid"` changes, beside the learning rate."""

EPOCHS: Final = (128, 192, 256, 320, 384)
"""Epochs of a whole training that the paper's grid tries (section 5.3)."""


_ANNEALS: Final = {
    "step": CONSTANT,
    "cosine": Anneal(share=1.0, shape="cosine"),
    "warmup_cosine": Anneal(share=1.0, shape="cosine", warmup=34 / 196),  # 34 epochs of 196
}


@dataclass(frozen=True, kw_only=True)
class HandTuned:
    """One training of the grid.

    Attributes:
        branch: The branch, empty if there are none.
        steps: Positions on the first axis that it goes through, from 1: ``(1, 3)`` is the paper's l1 → l3.
        decay: ``"cosine"`` lets the learning rate fall along half a cosine over the whole training; with ``"step"``
            it is what the settings say. ``"warmup_cosine"`` is the cosine of SlowFast, after a linear warm-up;
            ``"multigrid"`` the schedule of `multigrid`, at the last setting of the first axis.
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
    *,
    axes: Sequence[Axis],
    branches: Mapping[str, Setting] | None = None,
    epochs: Sequence[int] = EPOCHS,
    decays: Sequence[Decay] = PAPER_DECAYS,
    base: Setting | None = None,
) -> tuple[HandTuned, ...]:
    """Return the grid: every way along the first axis, with all decays, in all branches and for all epochs.

    The first axis is what the paper calls clip length: training goes from its first or second setting to its last, or
    through all of them, with the same number of epochs for each. The last axis is the learning rate: as many equal
    steps as it has settings (the paper's three), or a cosine from the first of them to zero, over the whole training.
    Axes between them keep their last setting. With the paper's three lengths and two samplings these are 60 trainings.

    Args:
        axes: Axes of the plan.
        branches: Branches of the plan.
        epochs: Epochs of the whole training to try.
        decays: How the learning rate is to go.
        base: What the configuration has of `SHAPE_KEYS`, for ``"multigrid"``.

    Raises:
        ValueError: If there is one axis only, a number of epochs is too small for all stages, or multigrid does not
            know the shape of the clips.
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
    for decay in decays:
        checked_choice("decays", decay, get_args(Decay))
    trainings = []
    for branch, own in (branches or {"": {}}).items():
        if "multigrid" in decays:
            whole = {**(base or {}), **own, **first.settings[-1], **fixed}
            for total in epochs:
                stages = _multigrid_stages(whole, rate, total)
                trainings.append(
                    HandTuned(branch=branch, steps=(last,), decay="multigrid", epochs=total, stages=stages)
                )
        for steps in ways:
            for decay in (each for each in decays if each != "multigrid"):
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
        stage = FixedStage(epochs=end - begin, offset=begin, total=total, anneal=_ANNEALS[decay])
        stages.append((length, level, stage))
        begin = end
    return stages


def _multigrid_stages(whole: Setting, rate: Axis, total: int) -> tuple[tuple[Setting, FixedStage], ...]:
    missing = [key for key in SHAPE_KEYS if not whole.get(key)]
    if missing:
        raise ValueError(
            f"`decays` must leave 'multigrid' out where the configuration says nothing of {', '.join(missing)}."
        )
    stages = []
    end, begin = 0.0, 0
    found = phases(total, len(rate.settings))
    whole_training = round(sum(phase.epochs for phase in found))
    for phase in found:
        end += phase.epochs
        epochs = round(end) - begin
        if epochs == 0:  # there are fewer epochs than shapes
            continue
        stage = FixedStage(epochs=epochs, offset=begin, total=whole_training)
        stages.append((_reshaped({**whole, **rate.settings[phase.level]}, phase), stage))
        begin = round(end)
    return tuple(stages)


def _reshaped(setting: Setting, phase: Phase) -> Setting:
    """A setting with the clips of a phase, and its rate for the larger batch."""
    length, crop, sides, batch = (setting[key] for key in SHAPE_KEYS)
    # Uniform sampling takes segments of four frames, and so do the networks.
    changed = {
        "data.clip_length": max(round(length * phase.length / 4) * 4, min(length, 4)),
        "data.crop_size": round(crop * phase.side),
        "data.short_side": [round(side * phase.side) for side in sides],
        "data.batch_size": round(batch * phase.batch),
        "data.short_cycle": True,
    }
    rates = {key: value * phase.batch for key, value in setting.items() if is_rate(key)}
    return {**setting, **changed, **rates}
