"""Save checkpoints so that a kill never leaves half a file under its final name."""

import os
from pathlib import Path

from lightning.pytorch import Trainer

__all__ = ["save_checkpoint_atomically"]


def save_checkpoint_atomically(trainer: Trainer, path: str, *, weights_only: bool = False) -> None:
    """Save a checkpoint under a temporary name in the same folder and rename it; to be called on all ranks.

    Args:
        trainer: The Trainer, in a fit.
        path: A local path.
        weights_only: Leave optimizers, callbacks and loops out.
    """
    temporary = path + ".tmp"
    trainer.save_checkpoint(temporary, weights_only=weights_only)
    if trainer.is_global_zero:
        Path(temporary).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)
    trainer.strategy.barrier("save_checkpoint_atomically")
