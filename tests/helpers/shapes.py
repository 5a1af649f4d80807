"""A callback that writes which batches a process of a training has got."""

from pathlib import Path

from lightning.pytorch import Callback


class WriteShapes(Callback):
    def __init__(self, folder: str = ".") -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        clips, _ = batch
        with open(self.folder / f"shapes-{trainer.global_rank}.txt", "a") as stream:
            print(trainer.current_epoch, len(clips), clips.shape[-1], file=stream)
