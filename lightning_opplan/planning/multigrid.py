"""The multigrid schedule: clips from short and small to whole, the smaller they are the more of them in a batch.

References:
    Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020. Factors of the long cycle, the
    half of the last phase at each of the last two rates, and one and a half times the epochs are those of the authors'
    configurations for SlowFast (PySlowFast). The short cycle is the data module's, see `VideoDataModule.short_cycle`.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["EPOCH_FACTOR", "LONG_CYCLE", "Phase", "phases"]

LONG_CYCLE: Final = ((0.25, math.sqrt(0.5)), (0.5, math.sqrt(0.5)), (0.5, 1.0), (1.0, 1.0))
"""Of every round, the factors on the length of a clip and on its side."""

EPOCH_FACTOR: Final = 1.5
"""Epochs for one of an ordinary training; each costs much less than one of those."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a training with one shape of clips.

    Attributes:
        level: Index of the learning rate.
        length: Factor on the length of a clip.
        side: Factor on its height and width.
        batch: Factor on the number of clips of a batch, and on the learning rate, which is scaled linearly.
        epochs: Epochs, perhaps a fraction.
    """

    level: int
    length: float
    side: float
    batch: float
    epochs: float


def phases(epochs: int, num_levels: int) -> tuple[Phase, ...]:
    """Return the phases of a training that would otherwise take some epochs, at several learning rates in turn.

    At every rate but the last one the long cycle is gone through once, each shape for as many updates as the others.
    What is left goes on with whole clips: as much less than before, half of it at the last rate but one.

    Args:
        epochs: Epochs of the ordinary training.
        num_levels: Learning rates, in equal steps.
    """
    shapes = [(length, side, 1.0 / (length * side**2)) for length, side in LONG_CYCLE]
    num_cycles = max(num_levels - 1, 1)
    of_step = epochs / (num_cycles + 1)
    all_batches = sum(batch for *_, batch in shapes)
    found = [
        Phase(level=level, length=length, side=side, batch=batch, epochs=of_step * batch / all_batches)
        for level in range(num_cycles)
        for length, side, batch in shapes
    ]
    # Whole clips are trained for as many updates less as the cycles save.
    of_end = of_step * len(shapes) / all_batches
    found += [
        Phase(level=level, length=1.0, side=1.0, batch=1.0, epochs=of_end / 2)
        for level in (max(num_levels - 2, 0), num_levels - 1)
    ]
    scale = EPOCH_FACTOR * epochs / sum(phase.epochs for phase in found)
    return tuple(replace(phase, epochs=phase.epochs * scale) for phase in found)
