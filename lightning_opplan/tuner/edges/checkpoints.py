"""Checkpoints to resume from, and weights to hand over."""

import hashlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_opplan._lightning import whole_epochs
from lightning_opplan.files import remove_partial, replacing

__all__ = ["extras_of", "file_checksum", "is_finite", "load_weights", "newest_checkpoint", "save_weights"]

_OF_TRAINING: Final = (
    "callbacks", "optimizer_states", "lr_schedulers", "loops", "current_model_state", "averaging_state",
)  # fmt: skip
_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
"""Types that are loaded from anywhere, beside tensors; of these exactly, as a subclass may be anything."""


def newest_checkpoint(folder: Path) -> tuple[str, int] | None:
    """Return the whole-epoch checkpoint that has come furthest, and the epoch (from 0) that follows it.

    From within an epoch Lightning goes on with a loader that is shuffled anew: not the same run any more.
    What is damaged is deleted, as is what a kill left half written.

    Raises:
        ValueError: If a checkpoint is whole, but holds objects whose classes are gone.
    """
    remove_partial(folder)
    found: list[tuple[int, int, str]] = []
    for file in folder.glob("*.ckpt"):
        try:
            epochs = whole_epochs(_read_own(file))
        except (AttributeError, ImportError) as error:
            raise ValueError(
                f"{file} holds objects that cannot be made any more: {' '.join(str(error).split())}. Restore their "
                "code, or delete the folder to train this edge anew."
            ) from error
        except Exception as error:
            rank_zero_warn(f"{file} cannot be loaded ({type(error).__name__}); training goes on from an earlier one.")
            file.unlink()
            continue
        if epochs is not None:
            found.append((epochs, file.stat().st_mtime_ns, str(file)))
    if not found:
        return None
    epochs, _, newest = max(found)
    return newest, epochs


def is_finite(checkpoint: str) -> bool:
    """Whether all weights of a checkpoint are finite."""
    state = _read_own(checkpoint)["state_dict"].values()
    return all(bool(tensor.isfinite().all()) for tensor in state if isinstance(tensor, Tensor))


def save_weights(checkpoint: str, target: Path) -> str:
    """Reduce a checkpoint to what `load_from_checkpoint` and a test's `ckpt_path` need; written whole or not.

    It loads safely, whatever the module keeps: hyper-parameters that are no plain values are left out, and other such
    objects, those of ``on_save_checkpoint`` for one, go into a second file, which is read between states alone.

    Returns:
        The checksum of the file.
    """
    content = _read_own(checkpoint)
    for training_state in _OF_TRAINING:
        content.pop(training_state, None)
    weights, extras = content["state_dict"], {}
    odd = {name: content.pop(name) for name, value in list(content.items()) if not _is_plain(value)}
    for name, value in odd.items():
        if name.endswith("hyper_parameters") and isinstance(value, Mapping):
            content[name] = {key: _as_plain(each) for key, each in value.items() if _is_plain(_as_plain(each))}
        elif name == "state_dict":  # its modules may have more than tensors
            content[name] = type(weights)((key, each) for key, each in weights.items() if _is_plain(each))
            extras[name] = {key: each for key, each in weights.items() if not _is_plain(each)}
        elif not name.startswith("hparams_"):  # what kind of mapping hyper-parameters were
            extras[name] = value
    extras_of(target).unlink(missing_ok=True)
    if extras:
        _write(extras, extras_of(target))
    return _write(content, target)


def extras_of(weights: Path) -> Path:
    """The file, beside one of weights, for what does not load safely."""
    return weights.with_suffix(".extras")


def file_checksum(file: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_weights(model: LightningModule, file: str, *, is_own: bool = False) -> None:
    """Load the weights of a checkpoint as Lightning does: by the module's hook, and as strictly as it wants.

    Its hyper-parameters are those of another state, and stay there.

    Args:
        model: The module.
        file: The file, from `save_weights`.
        is_own: Whether this package has written it for the same search; then what else the module kept is handed
            over, too, which may be any object.

    Raises:
        ValueError: If the weights do not fit the model.
    """
    model.configure_model()
    content = torch.load(file, map_location="cpu", weights_only=True)
    if is_own and extras_of(Path(file)).is_file():
        extras = _read_own(extras_of(Path(file)))
        content["state_dict"].update(extras.pop("state_dict", {}))
        content |= extras
    model.on_load_checkpoint(content)
    try:
        model.load_state_dict(content["state_dict"], strict=model.strict_loading)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"The weights of one state must fit the model of the next, but {file} does not. "
            "A setting must not change the shape of the network, and the model must build its layers in `__init__` "
            f"or `configure_model`. {reason}"
        ) from error


def _read_own(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file that this package has written: safely where that can be, as what users keep may be any object."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    return dict(content)


def _write(content: Mapping[str, Any], target: Path) -> str:
    with replacing(target) as partial:
        with partial.open("wb") as stream:  # torch keeps the name of a file that it opens itself in its content
            torch.save(dict(content), stream)
        return file_checksum(partial)


def _is_plain(value: Any) -> bool:
    """Whether a value is loaded from anywhere."""
    if type(value) in (*_PLAIN, Tensor, torch.nn.Parameter):
        return True
    if type(value) in (dict, OrderedDict):
        return all(_is_plain(key) and _is_plain(each) for key, each in value.items())
    return type(value) in (list, tuple, set) and all(map(_is_plain, value))


def _as_plain(value: Any) -> Any:
    """The same as plain values where there are some; other things as they are."""
    if isinstance(value, Mapping):
        return {_as_plain(key): _as_plain(each) for key, each in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple):
        return [_as_plain(each) for each in value]
    return value
