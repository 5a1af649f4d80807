"""Which configurations are saved beside their logs, and under which names."""

import os

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override

__all__ = ["SaveConfigOfFit"]


class SaveConfigOfFit(SaveConfigCallback):
    """Saves the configuration of a fit alone: a second test in a folder must not fail over that of the first.

    That of a second fit becomes ``config-v1.yaml``, as `ModelCheckpoint` has it.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not self.overwrite and self.save_to_log_dir and not self.already_saved:
            name, ending = os.path.splitext(self.config_filename)
            free, version = self.config_filename, 0
            while trainer.strategy.broadcast(os.path.exists(os.path.join(trainer.log_dir or "", free))):
                version += 1
                free = f"{name}-v{version}{ending}"
            self.config_filename = free
        super().setup(trainer, pl_module, stage)
