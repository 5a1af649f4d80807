"""Whether what an experiment is made of is new: Trainers, modules and callbacks keep what a fit has left in them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any
from weakref import ref

from lightning.pytorch import Callback, LightningDataModule
from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_opplan._lightning import callbacks_of
from lightning_opplan.tuner.edges.recipe import Experiment

__all__ = ["ensure_fresh"]


class _Known:
    """Remembers something of objects as long as they live, by identity: they may compare, or have no hash."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[ref[Any], Any]] = {}

    def __contains__(self, made: object) -> bool:
        return id(made) in self._found

    def __getitem__(self, made: object) -> Any:
        return self._found[id(made)][1]

    def add(self, made: object, what: Any = None) -> None:
        key = id(made)
        self._found[key] = ref(made, lambda _: self._found.pop(key, None)), what


_seen, _as_made = _Known(), _Known()


def ensure_fresh(experiment: Experiment, own: Sequence[Callback]) -> None:
    """Refuse a module or Trainer that has been in an experiment before; replace such callbacks by copies.

    Args:
        experiment: The experiment, before its fit.
        own: Callbacks that are made anew for every training.

    Raises:
        ValueError: If it has a module or Trainer of an experiment before, or a callback that cannot be copied.
    """
    for name, made in (("model", experiment.model), ("trainer", experiment.trainer)):
        if made in _seen:
            raise ValueError(
                f"`{name}` must return a new {type(made).__name__} for every edge, got the same object again. "
                f"Make it within the function, as `lambda **kw: {type(made).__name__}(…, **kw)`."
            )
        _seen.add(made)
    data = experiment.data
    if isinstance(data, LightningDataModule):
        if data in _seen:
            _warn_once(f"`data` returns the same {type(data).__name__} for every edge, with all that it remembers.")
        _seen.add(data)
    callbacks = callbacks_of(experiment.trainer)
    for index, callback in enumerate(callbacks):
        if any(callback is each for each in own):
            continue
        if callback not in _as_made:
            _as_made.add(callback, _copy(callback))
            continue
        as_made = _as_made[callback]
        if as_made is None:
            raise ValueError(
                f"Callbacks must be made anew for every edge, got the same {type(callback).__name__} again, which "
                "cannot be copied. Make it within the function that makes the Trainer."
            )
        callbacks[index] = deepcopy(as_made)
        # What it gathers is in the copies, where nobody may look for it.
        _warn_once(
            f"Every edge gets the same {type(callback).__name__}: each trains with a copy of it as it was at first, "
            "which keeps what it gathers. Make it within the function that makes the Trainer."
        )
    for logger in experiment.trainer.loggers:
        if logger in _seen:
            _warn_once(
                f"All edges log to the same {type(logger).__name__}, over one another. Make it within the function "
                "that makes the Trainer, with its folder: `lambda default_root_dir, **kw: …`."
            )
        _seen.add(logger)


def _copy(callback: Callback) -> Callback | None:
    try:
        return deepcopy(callback)
    except Exception:  # such as one that holds a lock or an open file
        return None


_warned: set[str] = set()


def _warn_once(sentence: str) -> None:
    if sentence not in _warned:
        _warned.add(sentence)
        rank_zero_warn(sentence)
