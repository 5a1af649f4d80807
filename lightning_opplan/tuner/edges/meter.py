"""What an edge spends: time, samples and frames, over all its attempts."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

__all__ = ["Meter", "Spent", "tensors_of"]


class Spent(NamedTuple):
    """What a training has taken: devices, samples and, for clips, their frames, on all devices together.

    Beside it, the samples of its last validation.
    """

    devices: int
    num_samples: int
    clip_frames: int | None
    num_validation: int | None


class Meter(Callback):
    """Count what the training of an edge takes; a resumed one goes on counting."""

    def __init__(self) -> None:
        self._before = 0.0
        self._started = time.monotonic()
        self._samples = 0
        self._frames = 0
        self._validated = 0

    @property
    def seconds(self) -> float:
        """Wall time of the fit."""
        return self._before + time.monotonic() - self._started

    def spent(self, trainer: Trainer) -> "Spent":
        """Return what the training has taken, on all devices together."""
        devices = trainer.world_size
        return Spent(
            devices, self._samples * devices, self._frames * devices or None, self._validated * devices or None
        )

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        samples, frames = _size(batch)
        self._samples += samples
        self._frames += frames

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = 0

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._validated += _size(batch)[0]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds, "samples": self._samples, "frames": self._frames, "validated": self._validated,
        }  # fmt: skip

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["seconds"]
        self._samples, self._frames = state_dict.get("samples", 0), state_dict.get("frames", 0)
        self._validated = state_dict.get("validated", 0)


def _size(batch: Any) -> tuple[int, int]:
    """Samples of a batch, and frames of its clips."""
    tensors = list(tensors_of(batch))
    clips = next((tensor for tensor in tensors if tensor.ndim == 5), None)  # (B, C, T, H, W)
    if clips is not None:
        return clips.shape[0], clips.shape[0] * clips.shape[2]
    return len(tensors[0]) if tensors else 1, 0


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch that have a first dimension."""
    if isinstance(batch, Tensor):
        if batch.ndim:
            yield batch
        return
    for part in batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ():
        yield from tensors_of(part)
