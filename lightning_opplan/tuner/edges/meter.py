"""What an edge spends: time, samples and frames, over all its attempts."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

__all__ = ["Meter", "Spent", "size_of", "tensors_of"]


class Spent(NamedTuple):
    """What a training has taken: devices, samples and, for clips, their frames, on all devices together.

    Beside it, the samples of its last validation, of the smallest set if there are several.
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
        self._start_seconds = 0.0
        self._samples = 0
        self._frames = 0
        self._validated: dict[int, int] = {}

    @property
    def seconds(self) -> float:
        """Wall time of the fit."""
        return self._before + time.monotonic() - self._started

    @property
    def start_seconds(self) -> float:
        """Of these, the time before a first batch: that of making network and data."""
        return self._start_seconds

    def spent(self, trainer: Trainer) -> "Spent":
        """Return what the training has taken, on all devices together."""
        devices, validated = trainer.world_size, min(self._validated.values(), default=0)
        return Spent(devices, self._samples * devices, self._frames * devices or None, validated * devices or None)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_seconds += time.monotonic() - self._started

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        samples, frames = size_of(batch)
        self._samples += samples
        self._frames += frames

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = {}

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._validated[dataloader_idx] = self._validated.get(dataloader_idx, 0) + size_of(batch)[0]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds, "start_seconds": self._start_seconds, "samples": self._samples,
            "frames": self._frames, "validated": self._validated,
        }  # fmt: skip

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before, self._start_seconds = state_dict["seconds"], state_dict.get("start_seconds", 0.0)
        self._samples, self._frames = state_dict.get("samples", 0), state_dict.get("frames", 0)
        self._validated = dict(state_dict.get("validated", {}))


def size_of(batch: Any) -> tuple[int, int]:
    """Return the samples of a batch, and the frames of its clips."""
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
