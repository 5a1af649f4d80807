"""What lies where in the folder of a training, such as that of an edge."""

import json
import shutil
from pathlib import Path

from lightning_opplan.files import emptied, remove_partial, replacing, write_json
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.progress import EDGE_FILE, EdgeProgress
from lightning_opplan.tuner.edges.checkpoints import extras_of

__all__ = ["TrainingFolder"]


class TrainingFolder:
    """The folder of a training; all that it writes is in here, but for the lock beside it.

    Attributes:
        path: The folder.
        weights: The weights that the training ended with.
        resume: Folder of checkpoints to go on from, apart from what callbacks of the user's write.
        log: What an edge prints where it has a process of its own.
        job: What further ranks of such a process need to join in.
        lock: Held by that process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.weights, self.resume = path / "weights.ckpt", path / "resume"
        self.log, self.job, self.lock = path / "worker.log", path / "job.pkl", path.with_name(path.name + ".lock")
        self._outcome = path / "outcome.json"

    def claim(self, plan: str) -> None:
        """Mark the folder as a plan's, by its fingerprint, and empty it if it was another's."""
        mark = self.path / "plan.json"
        remove_partial(self.path)
        if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == {"plan": plan}:
            return
        emptied(self.path)  # fails if anything is left that would be taken for this plan's
        write_json(mark, {"plan": plan})

    def finish(self, outcome: EdgeOutcome) -> None:
        """Keep what a finished edge came to, and no longer what to resume it from."""
        write_json(self._outcome, outcome.to_dict())
        self.clear()

    def known(self) -> EdgeOutcome | None:
        """Return what the edge came to, if it has finished."""
        if not self._outcome.is_file():
            return None
        self.clear()  # a kill may have come before
        return EdgeOutcome.from_dict(json.loads(self._outcome.read_text(encoding="utf-8")))

    def snapshot(self, epoch: float) -> Path:
        """The weights after an epoch at which the training was paused, as far as they were kept."""
        return self.path / f"weights-{epoch:g}.ckpt"

    def keep_snapshot(self, epoch: float) -> None:
        """Keep the present weights when later ones take their place."""
        weights, kept = self.weights, self.snapshot(epoch)
        for source, target in ((weights, kept), (extras_of(weights), extras_of(kept))):
            if source.is_file():
                with replacing(target) as partial:
                    shutil.copyfile(source, partial)

    def forget(self) -> None:
        """Let the edge be trained again, although it has finished."""
        self._outcome.unlink(missing_ok=True)

    def tell(self, progress: EdgeProgress) -> None:
        """Say how far the edge has come, for whoever watches it from elsewhere."""
        progress.write(self.path)

    def progress(self) -> EdgeProgress | None:
        """Return what `tell` said last."""
        return EdgeProgress.read(self.path)

    def end_of_progress(self) -> None:
        """Delete what was told: the edge has come to its end, or to a pause."""
        (self.path / EDGE_FILE).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what to resume from, after the end."""
        shutil.rmtree(self.resume, ignore_errors=True)
