"""Checkpoints to resume from, and weights to hand over."""

import hashlib
import os
from pathlib import Path
from typing import Final

import torch
from lightning.pytorch import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan._lightning import whole_epochs
from lightning_opplan.files import remove_partial, replacing

__all__ = ["file_checksum", "is_finite", "load_weights", "newest_checkpoint", "save_weights"]

_OF_TRAINING: Final = (
    "callbacks", "optimizer_states", "lr_schedulers", "loops", "current_model_state", "averaging_state",
)  # fmt: skip


def newest_checkpoint(folder: Path) -> tuple[str, int] | None:
    """Return the newest whole-epoch checkpoint that can be loaded, and the epoch (from 0) that follows it.

    From within an epoch Lightning goes on with a loader that is shuffled anew: not the same run any more.
    What cannot be loaded is deleted, as is what a kill left half written.

    Raises:
        ValueError: If a checkpoint is whole, but holds objects that are not loaded for safety.
    """
    remove_partial(folder)
    for file in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            epochs = whole_epochs(torch.load(file, map_location="cpu", weights_only=True))
            if epochs is not None:
                return str(file), epochs
        except Exception as error:
            if "Unsupported" in str(error):
                raise ValueError(
                    f"{file} holds objects that are not loaded for safety. Keep hyper-parameters and the state of "
                    f"callbacks to plain Python and tensors. {' '.join(str(error).split())}"
                ) from error
            rank_zero_warn(f"{file} cannot be loaded ({type(error).__name__}); training goes on from an earlier one.")
            file.unlink()
    return None


def is_finite(checkpoint: str) -> bool:
    """Whether all weights of a checkpoint are finite."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"].values()
    return all(bool(tensor.isfinite().all()) for tensor in state if isinstance(tensor, torch.Tensor))


def save_weights(checkpoint: str, target: Path) -> str:
    """Reduce a checkpoint to what `load_from_checkpoint` and a test's `ckpt_path` need; written whole or not.

    Returns:
        The checksum of the file.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for training_state in _OF_TRAINING:
        content.pop(training_state, None)
    with replacing(target) as partial:
        with partial.open("wb") as stream:  # torch keeps the name of a file that it opens itself in its content
            torch.save(content, stream)
        return file_checksum(partial)


def file_checksum(file: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(model: LightningModule, file: str) -> None:
    """Load the weights of a checkpoint and nothing else: its hyper-parameters are those of another state.

    Raises:
        ValueError: If they do not fit the model.
    """
    model.configure_model()
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights of one state must fit the model of the next, but {file} does not. "
            "A setting must not change the shape of the network, and the model must build its layers in `__init__` "
            f"or `configure_model`. {reason}"
        ) from error
