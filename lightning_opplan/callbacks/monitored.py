"""A metric that a callback follows, read alike on all ranks."""

import math

import torch
from lightning.pytorch import Trainer
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan.messages import suggestion

__all__ = ["MonitoredMetric"]


class MonitoredMetric:
    """A metric that validation logs.

    Args:
        name: Its name.
        is_strict: Whether a metric that is not logged is an error; else there is one warning.
    """

    def __init__(self, name: str, *, is_strict: bool) -> None:
        self.name = name
        self.is_strict = is_strict
        self._is_missed = False
        self._is_compared = False

    def read(self, trainer: Trainer) -> float | None:
        """Return what rank 0 has logged, on all ranks; ``None`` where that is nothing.

        Raises:
            RuntimeError: If there is no such metric, or more than one number of it, and this is strict.
        """
        metric = trainer.callback_metrics.get(self.name)
        message = None
        if metric is None:
            message = f"`monitor` must be a metric that validation logs, got {self.name!r}. " + suggestion(
                self.name, trainer.callback_metrics, label="Logged metrics"
            )
        elif metric.numel() != 1:
            message = f"`monitor` must be a single number, got {self.name!r} of shape {tuple(metric.shape)}."
        own = math.nan if metric is None or message else float(metric)
        # Rank 0 may be the only one that logs: what it found is settled before anything else is exchanged.
        message, value = trainer.strategy.broadcast((message, own))
        if message is None:
            self._compare(trainer, own)
            return float(value)
        if self.is_strict:
            raise RuntimeError(message)
        if not self._is_missed:
            self._is_missed = True
            rank_zero_warn(message)
        return None

    def _compare(self, trainer: Trainer, own: float) -> None:
        """Say once if the ranks have logged different values."""
        if trainer.world_size == 1 or self._is_compared:
            return
        self._is_compared = True
        everywhere = trainer.strategy.all_gather(torch.tensor(own, device=trainer.strategy.root_device))
        if not bool(torch.isclose(everywhere, everywhere.flatten()[0], rtol=1e-6, equal_nan=True).all()):
            rank_zero_warn(
                f"{self.name!r} differs between processes; the first one's value decides. "
                "Log it with `sync_dist=True`, or as a torchmetrics object."
            )
