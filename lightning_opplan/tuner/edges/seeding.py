"""Random numbers that do not depend on where a run was interrupted."""

import hashlib
import random

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

__all__ = ["EpochSeed", "derived_seed", "seed_all"]


def derived_seed(*parts: object) -> int:
    """Return a seed below 2³² that depends on all parts and is the same on every machine.

    Example:
        >>> derived_seed(0, "start → 1-1", 3) == derived_seed(0, "start → 1-1", 3)
        True
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def seed_all(seed: int) -> None:
    """Seed torch on all devices, NumPy and Python; leaves the seed that Lightning passes to its samplers alone."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - user code may draw from it
    torch.manual_seed(seed)


class EpochSeed(Callback):
    """Seed every epoch by itself: random state is not in Lightning's checkpoints.

    Args:
        seed: What the seeds are derived from, with epoch and rank.
        first_epoch: The epoch (from 0) that this fit begins with: 0, or the one after a checkpoint.
    """

    def __init__(self, seed: int, *, first_epoch: int) -> None:
        self.seed, self.first_epoch = seed, first_epoch

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The first epoch's loader is opened before `on_train_epoch_start`, those of the others after it. Seeding the
        # first epoch here and not there gives each epoch the same numbers, wherever the fit began.
        self._seed(trainer, self.first_epoch)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch != self.first_epoch:
            self._seed(trainer, trainer.current_epoch)

    def _seed(self, trainer: Trainer, epoch: int) -> None:
        seed_all(derived_seed(self.seed, "epoch", epoch, trainer.global_rank))
