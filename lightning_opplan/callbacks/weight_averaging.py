"""Moving averages of the weights: what is validated, kept, handed over and tested is the average."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_opplan._lightning import average_by, averaged_model, place_average

__all__ = ["ExponentialWeightAveraging", "GrowingWeightAveraging"]


class _AverageEverywhere(WeightAveraging):
    """Averaging as Lightning has it, on the device of the weights, and nothing is lost in a resumed fit or a test."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        place_average(self, trainer.strategy.root_device)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Each rank has seen other batches, and so has other statistics of batch normalization. A resumed training
        # takes those of the first rank; an undisturbed one has to do the same.
        if trainer.state.fn != TrainerFn.FITTING:
            return  # the module has the average already, or a checkpoint's weights
        average = averaged_model(self)
        if average is not None and trainer.world_size > 1:
            for buffer in average.module.buffers():
                torch.distributed.broadcast(buffer, 0)
        super().on_validation_epoch_start(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Of a checkpoint that is tested, the average is in place; Lightning would put the weights of the last step
        # there, if the same Trainer has trained before.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class GrowingWeightAveraging(_AverageEverywhere):
    """Average the weights over the last part of the training so far; validate, keep and end with the average.

    The time constant of the average is a share of the updates since training under this setting began: short at first,
    so that it is not held back by what came before, and long where a long training needs it. At a constant learning
    rate, the average is worth about what the weights would be after an annealed end.

    Buffers are averaged, too, but for counters. A training that was interrupted goes on with the same average.

    Args:
        share: The time constant, as a share of the updates so far.

    Raises:
        ValueError: If the share is not above 0 and at most 1.

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.

    Example:
        >>> GrowingWeightAveraging(share=0.2).share
        0.2
    """

    def __init__(self, share: float = 0.2) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be a share of the updates, above 0 and at most 1, got {share!r}.")
        self.share = share
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    def _average(self, averages: Any, weights: Any, num_averaged: Tensor | int) -> None:
        _move(averages, weights, min(1.0, 1.0 / (self.share * (float(num_averaged) + 1.0))))


class ExponentialWeightAveraging(_AverageEverywhere, EMAWeightAveraging):
    """Lightning's exponential moving average of the weights, which a test after a fit keeps, too.

    Args:
        decay: What the average keeps of itself at every step.

    Raises:
        ValueError: If the decay is not at least 0 and below 1.

    Example:
        >>> ExponentialWeightAveraging(0.99).decay
        0.99
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be a share of at least 0 and below 1, got {decay!r}.")
        self.decay = decay
        super().__init__(decay=decay)
        average_by(self, self._average)

    def _average(self, averages: Any, weights: Any, num_averaged: Tensor | int) -> None:  # noqa: ARG002
        _move(averages, weights, 1.0 - self.decay)


def _move(averages: Any, weights: Any, step: float) -> None:
    """Move the averages of one type and device a part of the way to the weights; whole numbers have no average."""
    if averages[0].is_floating_point() or averages[0].is_complex():
        torch._foreach_lerp_(averages, weights, step)
    else:
        torch._foreach_copy_(averages, weights)
