"""What we use of Lightning's private parts, all of it: nothing else in the package touches them.

A new version of Lightning may change any of it, which is why its version has an upper bound. For every function here
there is a test in ``tests/test_lightning.py`` that says what breaks without it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim.swa_utils import AveragedModel
from typing_extensions import override

from lightning_opplan.files import parse_yaml

__all__ = [
    "OpenCLI",
    "add_callback",
    "averaged_model",
    "callbacks_of",
    "finish_loggers",
    "has_reached_a_limit",
    "is_last_batch",
    "launch",
    "limit_epochs",
    "logging_step",
    "name_run",
    "num_batches_done",
    "remove_callbacks",
    "share_processes",
    "spawns_processes",
    "starts_processes",
    "state_key",
    "validate_within_fit",
    "whole_epochs",
]


# The loops of a Trainer


def limit_epochs(trainer: Trainer, number: int, *, is_exact: bool = False) -> None:
    """Let a fit train for so many epochs at most, or, with `is_exact`, whatever was configured as the least."""
    trainer.fit_loop.max_epochs = number
    if is_exact:
        trainer.fit_loop.min_epochs = None


def has_reached_a_limit(trainer: Trainer) -> bool:
    """Whether a fit would end now, at the end of an epoch, of its own accord or since it was asked to."""
    progress = trainer.fit_loop.epoch_progress.current
    completed = progress.completed
    try:
        return trainer.fit_loop.done
    finally:
        progress.completed = completed  # what looks like a question counts the epoch, too early for other callbacks


def is_last_batch(trainer: Trainer) -> bool:
    """Whether the batch that is trained now is the epoch's last."""
    return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def num_batches_done(trainer: Trainer) -> int:
    """Return how many batches of this epoch have been trained."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def logging_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs the metrics of a validation in a fit."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def whole_epochs(checkpoint: Mapping[str, Any]) -> int | None:
    """Return the epochs after which a checkpoint was saved; ``None`` if that was within an epoch."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return int(progress["processed"]) if progress["processed"] == progress["started"] else None


def validate_within_fit(trainer: Trainer) -> dict[str, Any]:
    """Validate in a fit, from ``on_train_start``, as `Trainer.validate` would; returns the metrics.

    Model and data are those of the fit as they are, set up for it. Callbacks that follow a fit pass it over, and what
    is random afterwards is as it would have been.
    """
    if not trainer.enable_validation:
        return {}
    loop, connector, state = trainer.validate_loop, trainer._logger_connector, trainer.state
    before = state.fn, state.stage
    # Metrics that were reset in inference mode could not be updated in the fit.
    loop.inference_mode, loop.verbose = False, False
    state.fn, state.stage = TrainerFn.VALIDATING, RunningStage.VALIDATING
    try:
        with isolate_rng():
            connector.reset_metrics()
            loop.run()
            return dict(trainer.callback_metrics)
    finally:
        connector.reset_results()
        connector.reset_metrics()
        state.fn, state.stage = before


# Callbacks and loggers


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return a Trainer's callbacks; the list is its own."""
    found: list[Callback] = getattr(trainer, "callbacks", [])
    return found


def add_callback(trainer: Trainer, callback: Callback) -> None:
    """Give a Trainer a further callback, after its own."""
    callbacks_of(trainer).append(callback)


def remove_callbacks(trainer: Trainer, is_unwanted: Callable[[Callback], bool]) -> None:
    """Remove some of a Trainer's callbacks."""
    callbacks_of(trainer)[:] = [callback for callback in callbacks_of(trainer) if not is_unwanted(callback)]


def state_key(callback: Callback, **arguments: Any) -> str:
    """Return the name of a callback's state in a checkpoint: its class and some of its arguments."""
    return callback._generate_state_key(**arguments)


def averaged_model(callback: WeightAveraging) -> AveragedModel | None:
    """Return the averaged model of a callback; ``None`` before its first fit."""
    return callback._average_model


def place_average(callback: WeightAveraging, device: torch.device) -> None:
    """Move an average to the device of the weights, if none was asked for.

    Lightning makes it before the strategy has moved the weights, so that it stays on the CPU.
    """
    if callback._average_model is not None and callback._device is None:
        callback._average_model.to(device)


def average_by(callback: WeightAveraging, average: Callable[[Any, Any, Any], None]) -> None:
    """Have a callback that is made average with a function for many tensors, as `AveragedModel` has it."""
    callback._kwargs = {"multi_avg_fn": average}


def name_run(
    logger: Logger,
    *,
    group: str,
    name: str,
    version: str | None,
    tags: Mapping[str, str],
    run_id: str | None,
    parent_id: str | None,
) -> None:
    """Give a logger that has not logged yet the names that its user has left open.

    Args:
        logger: The logger; one of a kind that is not known keeps its names.
        group: Name of the family of runs.
        name: Name of the run.
        version: Folder of the run, for loggers of files; ``None`` where it has a folder of its own.
        tags: Tags of the run, for loggers that know tags.
        run_id: Identity of the same run before an interruption, for loggers that can go on with it.
        parent_id: Identity of the family's own run, for loggers that nest runs.
    """
    if isinstance(logger, WandbLogger):
        made = logger._wandb_init
        made["group"] = made.get("group") or group
        made["name"] = made.get("name") or name
        if run_id is not None:
            made["id"] = logger._id = run_id
    elif isinstance(logger, MLFlowLogger):
        nested = {} if parent_id is None else {"mlflow.parentRunId": parent_id}
        logger.tags = {"group": group, **tags, **nested, **(logger.tags or {})}
        logger._run_name = logger._run_name or name
        logger._run_id = logger._run_id or run_id
    elif isinstance(logger, TensorBoardLogger | CSVLogger) and version is not None and logger._version is None:
        root, taken = os.path.join(logger._root_dir, group), 0
        logger._name, logger._version = group, version
        while isinstance(logger, CSVLogger) and os.path.exists(os.path.join(root, logger._version)):
            taken += 1  # a CSV file is begun anew where there is one
            logger._version = f"{version}-v{taken}"


def finish_loggers(loggers: Iterable[Logger]) -> None:
    """End what a logger would otherwise carry over into the next Trainer's run (Weights & Biases does).

    A logger that logs again opens its run anew.
    """
    for logger in loggers:
        finish = getattr(getattr(logger, "_experiment", None), "finish", None)
        if callable(finish):
            finish()
            logger._experiment = None  # type: ignore[attr-defined]


# Processes


def spawns_processes(strategy: Strategy) -> bool:
    """Whether a strategy starts its processes anew for every fit, which loses what callbacks have learned."""
    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def starts_processes(strategy: Strategy) -> bool:
    """Whether a strategy starts further ranks itself, once, by this process's own command."""
    return isinstance(strategy.launcher, _SubprocessScriptLauncher)


def launch(trainer: Trainer) -> bool:
    """Start the processes of a Trainer, and their group, without a fit; returns whether there are any to start."""
    launcher = trainer.strategy.launcher
    if launcher is None:
        return False
    launcher.launch(trainer.strategy.setup_environment, trainer=trainer)
    return True


def share_processes(owner: Strategy, other: Strategy) -> None:
    """Let a further strategy know the processes that the first one started, or SIGTERM would not reach them."""
    if isinstance(owner.launcher, _SubprocessScriptLauncher) and isinstance(other.launcher, _SubprocessScriptLauncher):
        other.launcher.procs = owner.launcher.procs


# The command line


class OpenCLI(LightningCLI):
    """LightningCLI, with names of our own for what a subclass with further subcommands needs of it."""

    def command_parser(self, klass: type, subcommand: str, **options: Any) -> LightningArgumentParser:
        """Return the parser of a subcommand; here as LightningCLI makes it."""
        return super()._prepare_subcommand_parser(klass, subcommand, **options)

    def run_command(self, subcommand: str) -> None:
        """Run a subcommand; here as LightningCLI does."""
        super()._run_subcommand(subcommand)

    @property
    def is_seeded(self) -> bool:
        """Whether the subcommand has a seed."""
        return True

    def value_of(self, key: str) -> Any:
        """Return a value of the configuration of this subcommand."""
        return self._get(self.config, key)

    def add_all_arguments(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of model, data, Trainer and optimizers to a parser, and those that the user adds."""
        self._add_arguments(parser)

    def add_own_arguments(self, parser: LightningArgumentParser) -> None:
        """Add further arguments, whatever a subclass of the user's adds."""

    def class_given(self, name: str) -> Any:
        """Return the class, or function, that this was made for: of ``"model"`` or ``"data"``."""
        given: Any = self._model_class if name == "model" else self._datamodule_class
        return given

    def instantiate_group(self, key: str, config: Namespace | None = None) -> Any:
        """Instantiate ``"data"``, or an entry of our own, and no other.

        Args:
            key: The entry.
            config: A configuration of this subcommand, parsed; by default the one that was given.
        """
        alone: Any = Namespace
        # A parser with more would make the other entries, too, from whatever they have as defaults.
        parser = LightningArgumentParser()
        if key == "data":
            parser.add_lightning_class_args(self._datamodule_class, key, subclass_mode=self.subclass_mode_data)
        else:
            self.add_own_arguments(parser)
        value = self.value_of(key) if config is None else config[key]
        return parser.instantiate_classes(alone({key: value}))[key]

    @property
    def parsers_of_commands(self) -> Mapping[str, LightningArgumentParser]:
        """The parsers of all subcommands."""
        return self._subcommand_parsers

    @property
    def parser_of_command(self) -> LightningArgumentParser:
        """The parser of this subcommand."""
        return self._parser(self.subcommand)

    def rebuild(self, config: Namespace, callbacks: Sequence[Callback]) -> tuple[Trainer, LightningModule, Any]:
        """Instantiate Trainer, model and data anew from another configuration of this subcommand.

        Args:
            config: The configuration, parsed.
            callbacks: Further callbacks for the Trainer.
        """
        self.config[self.subcommand] = config
        # A training that resumes has saved its configuration before.
        self.save_config_kwargs = {**self.save_config_kwargs, "overwrite": True}
        # Or checkpoints would hold the hyper-parameters of the configuration before. What was parsed is valid, and to
        # check it again, as LightningCLI would, takes longer than all else here.
        dumped = self.parser.dump(
            self.config, skip_link_targets=False, skip_none=False, skip_validation=True, format="yaml"
        )
        self.config_dump = parse_yaml(dumped)[self.subcommand]
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self._add_configure_optimizers_method_to_model(self.subcommand)
        own = self._get(self.config_init, "trainer").get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        self.trainer = self.instantiate_trainer(callbacks=[*own, *callbacks])
        return self.trainer, self.model, self.datamodule

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        return self.command_parser(klass, subcommand, **kwargs)

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        self.run_command(subcommand)

    @override
    def _add_arguments(self, parser: LightningArgumentParser) -> None:
        self.add_own_arguments(parser)  # before those of the user, who may set their defaults
        super()._add_arguments(parser)

    @override
    def _set_seed(self) -> None:
        if self.is_seeded:
            super()._set_seed()
