"""What a network is worth that always predicts the frequencies of the classes."""

import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_opplan._lightning import keep_validation_trainable
from lightning_opplan.tuner.edges.answers import answering
from lightning_opplan.tuner.edges.meter import tensors_of
from lightning_opplan.tuner.edges.recipe import Experiment

__all__ = ["value_of_chance"]


def value_of_chance(experiment: Experiment, monitor: str) -> float | None:
    """Validate with the logarithms of the classes' frequencies in the place of what `forward` returns.

    So it holds for whatever metric the module logs, accuracies over several ranks and losses among them. Where
    validation does not call the module itself, it is the value of the untrained network.

    Args:
        experiment: Model, data and Trainer, before the fit; all ranks call this.
        monitor: The metric.

    Returns:
        Its value; ``None`` if batches have no labels, or the module does not score classes.
    """
    trainer, model = experiment.trainer, experiment.model
    keep_validation_trainable(trainer)
    labels = _Labels()
    trainer.callbacks.append(labels)  # type: ignore[attr-defined]
    width = 0

    def look(scores: Any) -> Any:
        nonlocal width
        if isinstance(scores, Tensor) and scores.ndim == 2 and scores.is_floating_point():
            width = scores.shape[1]
        return scores

    try:
        with answering(model, look):
            trainer.validate(model, experiment.data, verbose=False)
        shares = labels.shares(width, trainer)
        if shares is None:
            return None
        with answering(model, lambda scores: shares.log().expand_as(scores)):
            trainer.validate(model, experiment.data, verbose=False)
    finally:
        trainer.callbacks.remove(labels)  # type: ignore[attr-defined]
    metric = trainer.callback_metrics.get(monitor)
    value = float(trainer.strategy.broadcast(math.nan if metric is None else float(metric)))
    return value if math.isfinite(value) else None


class _Labels(Callback):
    """Collects the labels of a validation: the first whole numbers that batches have, one per sample."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        whole = (t for t in tensors_of(batch) if t.ndim == 1 and not (t.is_floating_point() or t.is_complex()))
        self._seen += [tensor.long() for tensor in (next(whole, None),) if tensor is not None]

    def shares(self, width: int, trainer: Trainer) -> Tensor | None:
        """The share of every class, on all devices; one that was not seen counts a little."""
        labels = torch.cat(self._seen) if self._seen else torch.zeros(0, dtype=torch.long)
        is_sound = bool(len(labels)) and width > 1 and 0 <= int(labels.min()) <= int(labels.max()) < width
        if not trainer.strategy.broadcast(is_sound):
            return None
        counts = torch.bincount(labels.clamp(0, width - 1), minlength=width).float()
        reduced = trainer.strategy.reduce(counts.to(trainer.strategy.root_device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        reduced = reduced.clamp(min=1e-3)
        return reduced / reduced.sum()
