"""The folders of a search's edges."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_opplan.files import file_name
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.tuner.edges.checkpoints import extras_of, file_checksum
from lightning_opplan.tuner.edges.folder import TrainingFolder

__all__ = ["EdgeFolders"]


class EdgeFolders:
    """Where the edges of a search write.

    Attributes:
        dirpath: Folder of the search.

    Args:
        dirpath: The same.
        edges: All edges that it may run.
    """

    def __init__(self, dirpath: Path, edges: Sequence[Edge]) -> None:
        self.dirpath = dirpath.absolute()
        self._folder = self.dirpath / "edges"
        self._number = {edge: number for number, edge in enumerate(edges)}
        self._intact: set[tuple[Path, int]] = set()

    def __getitem__(self, edge: Edge) -> TrainingFolder:
        """The folder of an edge: a number, as the names of states may hold anything, and the names to read it by."""
        names = file_name(f"{edge.parent}--{edge.child}")
        return TrainingFolder(self._folder / f"{self._number[edge]:03d}_{names}")

    def has_weights(self, outcome: EdgeOutcome) -> bool:
        """Whether the weights of an edge are there as they were written; looked at once as long as the file stays."""
        file = self[outcome.edge].weights
        try:
            mark = file, file.stat().st_mtime_ns
            if mark not in self._intact and outcome.sha256 not in (None, file_checksum(file)):
                return False
        except OSError:
            return False
        self._intact.add(mark)
        return True

    def drop_weights(self, edges: Iterable[Edge]) -> None:
        """Delete the weights of edges."""
        for edge in edges:
            weights = self[edge].weights
            weights.unlink(missing_ok=True)
            extras_of(weights).unlink(missing_ok=True)
