"""One group of processes for all Trainers of a search."""

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import torch.distributed
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy

from lightning_opplan._lightning import launch, share_processes, spawns_processes, starts_processes

__all__ = ["Ranks", "die_with_parent"]

_GRACE: Final = 5.0
"""Seconds in which a rank whose parent has ended may still end its own work."""

T = TypeVar("T")


class Ranks:
    """The processes of a search, launched once, before its first decision.

    Before a first launch there is no process group: `strategy.broadcast` would silently return its argument, and the
    ranks would go separate ways.

    Args:
        trainer: A Trainer with the strategy and devices of all others to come; it is not used to train. ``None`` for a
            search whose edges run elsewhere: it has this process alone.

    Raises:
        MisconfigurationException: If the strategy spawns its processes anew for every fit, which loses what callbacks
            have learned.
    """

    def __init__(self, trainer: Trainer | None) -> None:
        if trainer is None:
            self._strategy: Strategy | None = None
            return
        self._strategy = trainer.strategy
        if spawns_processes(self._strategy):
            raise MisconfigurationException(
                "`strategy` must keep its processes from one fit to the next, got one that spawns or forks them "
                f"({type(self._strategy).__name__}). Use `strategy='ddp'`, or start the script with torchrun."
            )
        if starts_processes(self._strategy) and os.environ.get("LOCAL_RANK", "0") != "0":
            die_with_parent()
        if launch(trainer):
            atexit.register(_leave)

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self._strategy is None or self._strategy.is_global_zero

    def adopt(self, trainer: Trainer) -> None:
        """Let a further Trainer know the processes, or SIGTERM would not reach them."""
        assert self._strategy is not None
        share_processes(self._strategy, trainer.strategy)

    def decide(self, decision: Callable[[], T]) -> T:
        """Call a function on the first rank, and return its result, or raise its error, on all."""
        if self._strategy is None:
            return decision()
        outcome: tuple[Any, BaseException | None] = (None, None)
        if self.is_first:
            try:
                outcome = (decision(), None)
            except Exception as error:
                outcome = (None, error)
        result, raised = self._strategy.broadcast(outcome)
        if raised is not None:
            raise raised
        decided: T = result
        return decided

    def barrier(self) -> None:
        """Wait for all processes."""
        if self._strategy is not None:
            self._strategy.barrier()


def die_with_parent() -> None:
    """End this process soon after the one that started it: a rank alone may wait for the others for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        time.sleep(_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def _leave() -> None:
    # Once, at the very end: under torchrun a group that was destroyed cannot be joined again.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
