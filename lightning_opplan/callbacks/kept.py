"""The checkpoints of one fit: which there are, and which of them are the fit's to delete."""

import os
from collections.abc import Collection, Iterable

from lightning.pytorch import Trainer

from lightning_opplan.callbacks.saving import exists, free_path, save_checkpoint

__all__ = ["KeptCheckpoints"]


class KeptCheckpoints:
    """A checkpoint for every epoch that may still be wanted.

    Args:
        folder: Where they lie: a local folder, or a URL.
        is_exclusive: Whether nobody else writes into the folder, an earlier fit of the same training apart.

    Attributes:
        folder: Where new ones lie.
        paths: Those that there are, by epoch.
    """

    def __init__(self, folder: str = "", *, is_exclusive: bool = False) -> None:
        self.folder, self.is_exclusive = folder, is_exclusive
        self.paths: dict[float, str] = {}

    def restore(self, paths: Iterable[tuple[float, str]]) -> None:
        """Take those of a fit that is resumed, as far as they are there; their folder may have been moved since."""
        self.paths = {}
        for epoch, path in paths:
            places = (os.path.join(self.folder, os.path.basename(path)), path)
            place = next(filter(exists, places), None)
            if place is not None:
                self.paths[epoch] = place

    def nearest(self, epoch: float) -> float:
        """Return the epoch next to another one of which there is a checkpoint."""
        return min(self.paths, key=lambda other: (abs(other - epoch), other))

    def save(self, trainer: Trainer, epoch: float, *, weights_only: bool) -> None:
        """Save a checkpoint; to be called on all ranks."""
        name = f"knee-epoch={epoch}"
        path = f"{self.folder}/{name}.ckpt" if self.is_exclusive else free_path(trainer, self.folder, name)
        self.paths[epoch] = path
        save_checkpoint(trainer, path, weights_only=weights_only)

    def keep(self, trainer: Trainer, epochs: Collection[float]) -> None:
        """Delete the checkpoints of all other epochs; forget those that are not this fit's to delete."""
        for epoch in [epoch for epoch in self.paths if epoch not in epochs]:
            path = self.paths.pop(epoch)
            if self._is_own(trainer, path):
                trainer.strategy.remove_checkpoint(path)

    def _is_own(self, trainer: Trainer, path: str) -> bool:
        """Whether a checkpoint may be deleted: it lies in this fit's folder, and is not what the fit resumed from."""
        if self.is_exclusive:
            return True
        resumed_from = trainer.ckpt_path
        is_source = resumed_from is not None and os.path.realpath(str(resumed_from)) == os.path.realpath(path)
        return os.path.dirname(path) == self.folder and not is_source
