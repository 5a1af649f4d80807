"""Save checkpoints so that a kill never leaves half a file under its final name."""

from contextlib import nullcontext

from lightning.pytorch import Trainer

from lightning_opplan.files import PARTIAL, replacing

__all__ = ["save_checkpoint_atomically"]


def save_checkpoint_atomically(trainer: Trainer, path: str, *, weights_only: bool = False) -> None:
    """Save a checkpoint under a temporary name in the same folder and rename it; to be called on all ranks.

    Args:
        trainer: The Trainer, in a fit.
        path: A local path.
        weights_only: Leave optimizers, callbacks and loops out.
    """
    # All ranks write, to the same name; the first one gives it the last.
    with replacing(path, sync=False) if trainer.is_global_zero else nullcontext():
        trainer.save_checkpoint(path + PARTIAL, weights_only=weights_only)
    trainer.strategy.barrier("save_checkpoint_atomically")
