"""Write what a network gives to the videos of a prediction into a file."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor
from typing_extensions import override

from lightning_opplan.scores import Scores

__all__ = ["ScoreWriter"]


class ScoreWriter(BasePredictionWriter):
    """Write the scores of a prediction into one file, in the order of the data set, each video once.

    Every process scores its share; the first one writes. Names and labels are those of the ``videos`` of the data set;
    without any, samples are numbered.

    Args:
        file: The file, see `Scores`.
        source: What network and weights they are of.

    Raises:
        ValueError: If ``predict_step`` does not return scores ``(B, classes)``, or there are several loaders.
    """

    def __init__(self, file: str | os.PathLike[str], source: str = "") -> None:
        super().__init__(write_interval="batch")
        self.file, self.source = os.fspath(file), source
        self._found: dict[int, np.ndarray[Any, Any]] = {}

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._found = {}

    @override
    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if dataloader_idx:
            raise ValueError("Scores are written for one loader, got several.")
        if not isinstance(prediction, Tensor) or prediction.ndim != 2:
            raise ValueError(
                f"`predict_step` must return scores (B, classes) to be written, got {type(prediction).__name__}"
                + (f" of shape {tuple(prediction.shape)}." if isinstance(prediction, Tensor) else ".")
            )
        rows = prediction.detach().float().cpu().numpy()
        indices = batch_indices or range(len(self._found), len(self._found) + len(rows))
        self._found.update(zip(indices, rows, strict=True))

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.predict_dataloaders
        loader = loader[0] if isinstance(loader, list | tuple) else loader
        dataset = getattr(loader, "dataset", None)
        videos = getattr(dataset, "videos", None)
        # In place of a broken video, another one was scored.
        broken = getattr(dataset, "broken", ())
        own = {index: row for index, row in self._found.items() if index not in broken}
        shares = [own]
        if trainer.world_size > 1:
            shares = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, own)
        # A distributed sampler fills up the last round: what comes twice is the same.
        found = {index: row for share in shares for index, row in share.items()}
        if not trainer.is_global_zero:
            return
        names = {index: str(index) if videos is None else videos[index].name for index in sorted(found)}
        # A video that is listed twice is written once.
        order = sorted({name: index for index, name in reversed(names.items())}.values())
        Scores(
            ids=tuple(names[index] for index in order),
            scores=np.stack([found[index] for index in order]).astype(np.float64),
            labels=np.array([-1 if videos is None else videos[index].label for index in order], np.int64),
            source=self.source,
        ).save(self.file)
        rank_zero_info(f"Scores of {len(order)} samples: {self.file}")
