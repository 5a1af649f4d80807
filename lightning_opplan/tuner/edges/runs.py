"""What a training is called in its loggers, so that a dashboard shows a search as one family of runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from lightning_opplan._lightning import name_run
from lightning_opplan.files import file_name, write_json
from lightning_opplan.planning.graph import Setting

__all__ = ["NameRuns", "RunName", "log_names", "name_runs"]

_RUNS = "runs.json"


@dataclass(frozen=True, kw_only=True)
class RunName:
    """How a training shows in a dashboard.

    Attributes:
        group: Name of the family: that of the plan's folder.
        name: Name of the run in it.
        tags: What it is of, by name, such as the parent state.
        family: Folder whose own run is the parent of this one, for loggers that nest runs.
    """

    group: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    family: Path | None = None


def name_runs(loggers: Sequence[Logger], run: RunName, folder: Path) -> None:
    """Give loggers the names that they were not given; a run that was interrupted goes on where that is possible.

    Args:
        loggers: Loggers that have not logged yet.
        run: The names.
        folder: Where `NameRuns` keeps what the runs are, and whose loggers lie within it.
    """
    known, parents = _known(folder), {} if run.family is None else _known(run.family)
    for index, logger in enumerate(loggers):
        key = _key(index, logger)
        inside = logger.save_dir is not None and Path(logger.save_dir).absolute().is_relative_to(folder.absolute())
        name_run(
            logger,
            group=run.group,
            name=run.name,
            version=None if inside else file_name(run.name),
            tags=run.tags,
            run_id=known.get(key),
            parent_id=parents.get(key),
        )


class NameRuns(Callback):
    """Log what a run is of, and keep which one it is.

    Args:
        run: The names.
        setting: The state's setting, logged as hyper-parameters.
        folder: Where to keep it.
    """

    def __init__(self, run: RunName, setting: Setting, folder: Path) -> None:
        self.run, self.setting, self.folder = run, setting, folder

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            log_names(trainer.loggers, self.run, self.folder, self.setting)


def log_names(loggers: Sequence[Logger], run: RunName, folder: Path, setting: Setting | None = None) -> None:
    """Log what runs are of, and keep which ones they are; on the first rank."""
    if not loggers:
        return
    before = _known(folder)
    for logger in loggers:
        logger.log_hyperparams({**run.tags, **(setting or {})})
    now = {_key(index, logger): str(logger.version) for index, logger in enumerate(loggers)}
    if now != before:
        write_json(folder / _RUNS, now)


def _known(folder: Path) -> dict[str, str]:
    file = folder / _RUNS
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _key(index: int, logger: Logger) -> str:
    return f"{index} {type(logger).__name__}"
