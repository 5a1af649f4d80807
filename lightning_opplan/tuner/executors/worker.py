"""Where an edge runs if not in the search's own process: a process of its own, which ends with the search.

It leads a process group, so that whatever it starts (ranks, loaders) can be ended with it, and it watches the process
that it works for: killed without warning, that one leaves nothing behind.

As a program, ``python -m lightning_opplan.tuner.executors.worker FILE``, this module is a further rank of an edge on
several devices.
"""

import math
import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Imported once, before the processes of the edges are forked off.
import lightning_opplan.data
import lightning_opplan.modules  # noqa: F401
from lightning_opplan.messages import is_of_package
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.tuner.edges.edge import run_edge
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.job import EdgeJob
from lightning_opplan.tuner.edges.ranks import Ranks, die_with_parent
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.executors.lock import FileLock

__all__ = ["EdgeFailure", "work"]


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
        folder = job.folder
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        # Of a former search a process may be left that has not yet noticed, or a job of SLURM's that runs to its end.
        with FileLock(folder.lock, timeout=math.inf):
            folder.claim(job.plan)
            _print_to(folder.log)
            _let_ranks_join(job, recipe)
            return _run(job, recipe)
    except SIGTERMException:
        raise
    except BaseException as error:
        return _failure(error)


def _run(job: EdgeJob, pickled: bytes) -> EdgeOutcome:
    with hushed():
        recipe: Recipe = cloudpickle.loads(pickled)
        ranks = Ranks(recipe.build_trainer(str(job.folder.path), job.training.devices))
        outcome = run_edge(job, recipe, ranks)
    job.folder.job.unlink(missing_ok=True)
    return outcome


def _print_to(file: Path) -> None:
    """Let this process and what it starts print to a file: the terminal is the search's."""
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)


def _let_ranks_join(job: EdgeJob, recipe: bytes) -> None:
    """Make this process look like a run of this module: Lightning starts further ranks by the same command."""
    job.folder.job.write_bytes(pickle.dumps((job, recipe)))
    sys.modules["__main__"].__spec__ = __spec__
    sys.argv = [__file__, str(job.folder.job)]


def _failure(error: BaseException) -> EdgeFailure:
    ours = is_of_package(error)
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
