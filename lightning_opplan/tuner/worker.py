"""Where an edge runs if not in the search's own process: a process of its own, which ends with the search.

It leads a process group, so that whatever it starts (ranks, loaders) can be ended with it, and it watches the process
that it works for: killed without warning, that one leaves nothing behind.

As a program, ``python -m lightning_opplan.tuner.worker FILE``, this module is a further rank of an edge on several
devices.
"""

import json
import math
import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cloudpickle
from lightning.pytorch.utilities.exceptions import SIGTERMException

import lightning_opplan.modules  # noqa: F401 - imported once, before the processes of the edges are forked off
import lightning_opplan.tuner.edge as edge_module
from lightning_opplan.planning.search import EdgeOutcome
from lightning_opplan.tuner.edge import EdgeJob, claim_folder, hushed, run_edge, write_json
from lightning_opplan.tuner.lock import FileLock
from lightning_opplan.tuner.ranks import Ranks, die_with_parent
from lightning_opplan.tuner.recipe import Recipe

__all__ = ["EdgeFailure", "read_progress", "work"]

_PROGRESS: Final = "progress.json"
_JOB: Final = "job.pkl"
_PACKAGE: Final = Path(edge_module.__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class EdgeFailure:
    """Why an edge could not be run, in a form that passes between processes.

    Attributes:
        sentence: What to tell the user.
        trace: The traceback.
        is_expected: Whether the sentence says all: the error was raised on purpose, or by the system.
    """

    sentence: str
    trace: str
    is_expected: bool


def work(job: EdgeJob, recipe: bytes) -> EdgeOutcome | EdgeFailure:
    """Run an edge in this process, which does nothing else.

    Args:
        job: The edge.
        recipe: Makes its experiment; pickled by cloudpickle, as its functions may be anything.
    """
    try:
        Path(job.folder).parent.mkdir(parents=True, exist_ok=True)
        # Of a former search a process may be left that has not yet noticed, or a job of SLURM's that runs to its end.
        with FileLock(f"{job.folder}.lock", timeout=math.inf):
            claim_folder(job)
            _print_to(Path(job.folder, "worker.log"))
            _let_ranks_join(job, recipe, Path(job.folder, _JOB))
            return _run(job, recipe)
    except SIGTERMException:
        raise
    except BaseException as error:
        return _failure(error)


def read_progress(folder: str | os.PathLike[str]) -> tuple[float, float | None, float | None] | None:
    """Return epoch, value and knee of a running edge, as its worker last wrote them."""
    try:
        content = json.loads(Path(folder, _PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content["epoch"], content["value"], content["knee"]


def _run(job: EdgeJob, pickled: bytes) -> EdgeOutcome:
    progress = Path(job.folder, _PROGRESS)

    def listener(_: object, epoch: float, value: float | None, knee: float | None) -> None:
        write_json(progress, {"epoch": epoch, "value": value, "knee": knee})

    with hushed():
        recipe: Recipe = cloudpickle.loads(pickled)
        outcome = run_edge(job, recipe, Ranks(recipe.build_trainer(job.folder, job.devices)), listener)
    progress.unlink(missing_ok=True)
    Path(job.folder, _JOB).unlink(missing_ok=True)
    return outcome


def _print_to(file: Path) -> None:
    """Let this process and what it starts print to a file: the terminal is the search's."""
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)


def _let_ranks_join(job: EdgeJob, recipe: bytes, file: Path) -> None:
    """Make this process look like a run of this module: Lightning starts further ranks by the same command."""
    file.write_bytes(pickle.dumps((job, recipe)))
    sys.modules["__main__"].__spec__ = __spec__
    sys.argv = [__file__, str(file)]


def _failure(error: BaseException) -> EdgeFailure:
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(_PACKAGE)
    text = " ".join(str(error).split())
    return EdgeFailure(
        sentence=text if ours else f"{type(error).__name__}: {text}",
        trace="".join(traceback.format_exception(error)),
        is_expected=ours or isinstance(error, OSError),
    )


def _join_as_rank(file: str) -> None:
    die_with_parent()
    job, recipe = pickle.loads(Path(file).read_bytes())
    _run(job, recipe)


if __name__ == "__main__":
    _join_as_rank(sys.argv[1])
