"""Where a callback's checkpoints lie, what they are called, and how they are written and deleted."""

import os
from contextlib import nullcontext
from pathlib import Path
from weakref import proxy

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_opplan.files import PARTIAL, replacing

__all__ = ["checkpoint_folder", "exists", "free_path", "save_checkpoint", "tell_loggers", "tell_role"]


def checkpoint_folder(trainer: Trainer, dirpath: str | os.PathLike[str] | None) -> str:
    """Return the folder where `ModelCheckpoint` would keep its checkpoints; the same on all ranks.

    Args:
        trainer: The Trainer.
        dirpath: A folder that was asked for: a local one, or a URL that fsspec knows.
    """
    if dirpath is None:
        loggers = trainer.loggers
        root = (loggers[0].save_dir if loggers else None) or trainer.default_root_dir
        parts = [str(loggers[0].name), _version(loggers[0].version)] if loggers else []
        dirpath = os.path.join(root, *parts, "checkpoints")
    folder = str(dirpath)
    if _is_local(folder):
        folder = os.path.realpath(os.path.expanduser(folder.removeprefix("file://")))
    elif not folder.endswith("://"):
        folder = folder.rstrip("/")
    shared: str = trainer.strategy.broadcast(folder)
    return shared


def exists(path: str) -> bool:
    """Whether there is a checkpoint, in whatever file system."""
    file_system, place = url_to_fs(path)
    return bool(file_system.exists(place))


def free_path(trainer: Trainer, folder: str, name: str) -> str:
    """Return a path for a checkpoint that is nobody's yet: with `-v1`, `-v2`, … if need be; the same on all ranks."""
    path = f"{folder}/{name}.ckpt"
    if trainer.is_global_zero:
        version = 0
        while exists(path):
            version += 1
            path = f"{folder}/{name}-v{version}.ckpt"
    shared: str = trainer.strategy.broadcast(path)
    return shared


def save_checkpoint(trainer: Trainer, path: str, *, weights_only: bool = False) -> None:
    """Save a checkpoint; to be called on all ranks.

    Where Lightning writes a local file itself, it is written under a temporary name in the same folder and then
    renamed, so that a kill never leaves half a file under the final name.

    Args:
        trainer: The Trainer, in a fit.
        path: A local path, or a URL.
        weights_only: Leave optimizers, callbacks and loops out.
    """
    # Other ways of writing may be done later, or elsewhere.
    if not _is_local(path) or type(trainer.strategy.checkpoint_io) is not TorchCheckpointIO:
        trainer.save_checkpoint(path, weights_only=weights_only)
        return
    # All ranks write, to the same name; the first one gives it the last.
    with replacing(path, sync=False) if trainer.is_global_zero else nullcontext():
        trainer.save_checkpoint(path + PARTIAL, weights_only=weights_only)
    trainer.strategy.barrier("save_checkpoint")


def tell_loggers(trainer: Trainer, callback: Checkpoint) -> None:
    """Let loggers that keep models know of a new checkpoint."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.after_save_checkpoint(proxy(callback))


def tell_role(trainer: Trainer, callback: Checkpoint) -> None:
    """Say so if ``ckpt_path="best"`` means another callback than this."""
    first = trainer.checkpoint_callback
    if first is None or first is callback:
        return
    message = (
        f'`ckpt_path="best"` means the best of {type(first).__name__}, the first checkpoint callback of the '
        "Trainer, and not the knee: take `ckpt_path=stopping.best_model_path`."
    )
    # One that Lightning has added, as it did not see this one, is nobody's wish.
    is_default = getattr(first, "monitor", None) is None and getattr(first, "save_last", None) is None
    (rank_zero_warn if is_default else rank_zero_info)(message)


def _version(version: int | str | None) -> str:
    return version if isinstance(version, str) else f"version_{version}"


def _is_local(path: str | Path) -> bool:
    return isinstance(url_to_fs(str(path))[0], LocalFileSystem)
