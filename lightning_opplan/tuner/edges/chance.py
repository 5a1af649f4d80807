"""What a network is worth that always predicts the frequencies of the classes."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_opplan._lightning import validate_within_fit
from lightning_opplan.tuner.edges.answers import answering
from lightning_opplan.tuner.edges.meter import tensors_of

__all__ = ["MeasureChance"]


class MeasureChance(Callback):
    """Validate, before a first epoch, with the logarithms of the classes' frequencies in the place of the scores.

    So it holds for whatever metric the module logs, accuracies over several ranks and losses among them. Where
    validation does not call the module itself, it is the value of the untrained network.

    Args:
        monitor: The metric.

    Attributes:
        value: Its value; ``None`` if batches have no labels, or the module does not score classes.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.value: float | None = None
        self._labels: list[Tensor] | None = None
        self._width = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is not None:
            return
        self._labels = []
        with answering(pl_module, self._look):
            validate_within_fit(trainer)
        shares, self._labels = self._shares(self._labels, trainer), None
        if shares is None:
            return
        with answering(pl_module, lambda scores: shares.log().expand_as(scores)):
            metric = validate_within_fit(trainer).get(self.monitor)
        value = float(trainer.strategy.broadcast(math.nan if metric is None else float(metric)))
        self.value = value if math.isfinite(value) else None

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._labels is not None:
            # The first whole numbers that a batch has, one per sample.
            whole = (t for t in tensors_of(batch) if t.ndim == 1 and not (t.is_floating_point() or t.is_complex()))
            self._labels += [tensor.long() for tensor in (next(whole, None),) if tensor is not None]

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

    def _shares(self, seen: list[Tensor], trainer: Trainer) -> Tensor | None:
        """The share of every class, on all devices; one that was not seen counts a little."""
        labels, width = torch.cat(seen) if seen else torch.zeros(0, dtype=torch.long), self._width
        is_sound = bool(len(labels)) and width > 1 and 0 <= int(labels.min()) <= int(labels.max()) < width
        if not trainer.strategy.broadcast(is_sound):
            return None
        counts = torch.bincount(labels.clamp(0, width - 1), minlength=width).float()
        reduced = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        reduced = reduced.clamp(min=1e-3)
        return reduced / reduced.sum()
