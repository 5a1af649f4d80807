"""Batches of small clips in between: the short cycle of multigrid training.

References:
    Wu et al., "A Multigrid Method for Efficiently Training Video Models", CVPR 2020.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any, Final

from torch.utils.data import BatchSampler, Sampler
from typing_extensions import override

__all__ = ["LARGEST_BATCH", "SHORT_CYCLE", "ShortCycleBatches"]

SHORT_CYCLE: Final = (0.5, math.sqrt(0.5), 1.0)
"""Factors on the side of the clips, batch by batch; a batch has as many more clips as they have fewer pixels."""

LARGEST_BATCH: Final = 4
"""Clips of the largest batch, for one of a batch whose clips are whole."""


class ShortCycleBatches(BatchSampler):
    """Draws batches of 4, 2 and 1 times the size in turn, of pairs of an index and the factor on the clip's side.

    Args:
        sampler: Draws indices.
        batch_size: Clips of a batch whose clips are whole.
        drop_last: Leave out a last batch that is not full.
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool) -> None:
        super().__init__(sampler, batch_size, drop_last)

    @override
    def __iter__(self) -> Iterator[Any]:
        indices = iter(self.sampler)
        for side, size in cycle(zip(SHORT_CYCLE, self._sizes(), strict=True)):
            batch = [(index, side) for index in islice(indices, size)]
            if len(batch) == size or (batch and not self.drop_last):
                yield batch
            if len(batch) < size:
                return

    @override
    def __len__(self) -> int:
        sizes = self._sizes()
        cycles, left = divmod(len(self.sampler), sum(sizes))  # type: ignore[arg-type]
        number = cycles * len(sizes)
        for size in sizes:
            if left >= size or (left > 0 and not self.drop_last):
                number += 1
            left -= size
            if left <= 0:
                break
        return number

    def _sizes(self) -> list[int]:
        return [round(self.batch_size / side**2) for side in SHORT_CYCLE]
