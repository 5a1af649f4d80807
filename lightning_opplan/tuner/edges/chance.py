"""What a network is worth that always predicts the frequencies of the classes."""

import math
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_opplan._lightning import check_validation
from lightning_opplan.tuner.edges.answers import answering
from lightning_opplan.tuner.edges.meter import tensors_of

__all__ = ["MeasureChance"]


class MeasureChance(Callback):
    """Validate, before a fit, with the logarithms of the classes' frequencies in the place of what `forward` returns.

    So it holds for whatever metric the module logs, accuracies over several ranks and losses among them. Where
    validation does not call the module itself, it is the value of the untrained network. It is done in Lightning's
    check of the validation, whose metrics are logged nowhere.

    Args:
        monitor: The metric.

    Attributes:
        value: Its value; ``None`` if batches have no labels, or the module does not score classes.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.value: float | None = None
        self._labels: list[Tensor] = []
        self._width = 0
        self._shares: Tensor | None = None
        self._answers = ExitStack()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.ckpt_path is None:
            trainer.num_sanity_val_steps = float("inf")  # as Lightning has it for -1

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shares = self._shares
        if shares is None:
            self._answers.enter_context(answering(pl_module, self._look))
        else:
            self._answers.enter_context(answering(pl_module, lambda scores: shares.log().expand_as(scores)))

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.sanity_checking and self._shares is None:
            # The first whole numbers that a batch has, one per sample.
            whole = (t for t in tensors_of(batch) if t.ndim == 1 and not (t.is_floating_point() or t.is_complex()))
            self._labels += [tensor.long() for tensor in (next(whole, None),) if tensor is not None]

    @override
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._answers.close()
        if self._shares is None:
            self._shares = self._found(trainer)
            self._labels.clear()
            if self._shares is not None:
                check_validation(trainer)
            return
        metric = trainer.callback_metrics.get(self.monitor)
        value = float(trainer.strategy.broadcast(math.nan if metric is None else float(metric)))
        self.value = value if math.isfinite(value) else None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]

    def _look(self, scores: Any) -> Any:
        if isinstance(scores, Tensor) and scores.ndim == 2 and scores.is_floating_point():
            self._width = scores.shape[1]
        return scores

    def _found(self, trainer: Trainer) -> Tensor | None:
        """The share of every class, on all devices; one that was not seen counts a little."""
        labels, width = torch.cat(self._labels) if self._labels else torch.zeros(0, dtype=torch.long), self._width
        is_sound = bool(len(labels)) and width > 1 and 0 <= int(labels.min()) <= int(labels.max()) < width
        if not trainer.strategy.broadcast(is_sound):
            return None
        counts = torch.bincount(labels.clamp(0, width - 1), minlength=width).float()
        reduced = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        reduced = reduced.clamp(min=1e-3)
        return reduced / reduced.sum()
