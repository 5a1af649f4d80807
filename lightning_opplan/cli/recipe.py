"""Experiments from the configuration of a command line, here and in other processes."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, Protocol

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_opplan.files import dump_yaml, write_text
from lightning_opplan.planning.graph import Setting
from lightning_opplan.tuner.edges.recipe import Experiment, check_setting_keys

__all__ = ["CommandLine", "ConfigRecipe"]

_SHOWN_ONLY: Final = (
    "default_root_dir", "enable_model_summary", "enable_progress_bar", "log_every_n_steps", "logger", "profiler",
)  # fmt: skip
"""Arguments of the Trainer that a result does not depend on."""

_OF_COMMANDS: Final = ("path", "anneal", "members", "ensemble", "dry_run", "take_settings", "scores", "split")
"""Arguments of single commands, which are no part of the experiment."""

_ABSENT: Final = object()


class CommandLine(Protocol):
    """What a recipe needs of an `OpplanCLI`.

    Attributes:
        given: Arguments that it was made of, without the words of the command line.
        subcommand: The command.
    """

    given: tuple[tuple[Any, ...], dict[str, Any]]
    subcommand: Any

    def base_config(self) -> dict[str, Any]:
        """Return the resolved configuration as plain values."""

    def parsed(self, config: Mapping[str, Any]) -> Namespace:
        """Check a configuration."""

    def classes(self, config: Mapping[str, Any]) -> list[Any]:
        """Return the classes of model and data in a configuration."""

    def data_of(self, config: Mapping[str, Any]) -> Any:
        """Instantiate the data of a configuration, and nothing else."""

    def experiment(self, config: Mapping[str, Any], callbacks: Sequence[Callback]) -> Experiment:
        """Instantiate model, data and Trainer from a configuration."""


class ConfigRecipe:
    """Makes experiments from the configuration of the command line."""

    def __init__(self, cli: CommandLine) -> None:
        self.cli = cli
        self.base = cli.base_config()

    def check(self, settings: Iterable[Setting]) -> None:
        """See `Recipe`."""
        valid = list(_keys(self.base))
        for setting in settings:
            check_setting_keys(setting, valid)
            try:
                self.cli.parsed(self._merged(setting))
            except ValueError as error:
                raise ValueError(f"The setting {dict(setting)!r} does not fit the configuration: {error}") from error

    def build(
        self, setting: Setting, *, callbacks: Sequence[Callback], folder: str, devices: int | None = None
    ) -> Experiment:
        """See `Recipe`."""
        config = self._merged(setting)
        trainer = config["trainer"]
        if devices is not None:
            trainer["devices"] = devices
        # The search has a `KneeStopping` of its own; one of a plain fit would be in its way.
        own = trainer["callbacks"] if isinstance(trainer["callbacks"], list) else [trainer["callbacks"]]
        trainer["callbacks"] = [c for c in own if c and not c.get("class_path", "").endswith(".KneeStopping")]
        trainer.update(default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False)
        loggers = trainer["logger"] if isinstance(trainer["logger"], list) else [trainer["logger"]]
        for logger in loggers:
            if isinstance(logger, dict) and "save_dir" in logger.get("init_args", {}):
                logger["init_args"]["save_dir"] = folder  # one log directory per edge
        return self.cli.experiment(config, callbacks)

    def build_trainer(self, folder: str, devices: int | None = None) -> Trainer:
        """See `Recipe`."""
        return self.build({}, callbacks=[], folder=folder, devices=devices).trainer

    def build_model(self, setting: Setting) -> LightningModule:
        """See `Recipe`; what else belongs to the experiment is made, too, as arguments may be linked."""
        return self.build(setting, callbacks=[], folder=".").model

    def build_data(self, setting: Setting) -> Any:
        """See `Recipe`."""
        return self.cli.data_of(self._merged(setting))

    def code(self) -> Iterable[Any]:
        """See `Recipe`."""
        return self.cli.classes(self.base)

    def save(self, setting: Setting, file: Path) -> Path:
        """Write the configuration under a setting as YAML for fit, validate, test and predict."""
        config = self._merged(setting)
        for name in _OF_COMMANDS:
            config.pop(name, None)
        write_text(file, dump_yaml(config))
        return file

    def __reduce__(self) -> tuple[Any, ...]:
        # An edge in another process makes its command line anew from the configuration.
        return _recipe_elsewhere, (type(self.cli), self.cli.given, self.cli.subcommand, self.base)

    def describe(self) -> Mapping[str, Any]:
        """See `Recipe`."""
        config = deepcopy(self.base)
        for name in ("plan", "seed_everything", *_OF_COMMANDS):
            config.pop(name, None)
        for name in _SHOWN_ONLY:
            config["trainer"].pop(name, None)
        return config

    def values_of(self, keys: Iterable[str]) -> Setting:
        """See `Recipe`."""
        found = {}
        for key in keys:
            node: Any = self.base
            for name in key.split("."):
                node = _arguments(node).get(name, _ABSENT) if isinstance(node, dict) else _ABSENT
            if node is not _ABSENT:
                found[key] = deepcopy(node)
        return found

    def _merged(self, setting: Setting) -> dict[str, Any]:
        config = deepcopy(self.base)
        for key, value in setting.items():
            *parents, name = key.split(".")
            node = config
            for parent in parents:
                node = _arguments(node)[parent]
            _arguments(node)[name] = value
        return config


class _Prepared:
    """Keeps a command line from running its command."""

    def run_command(self, subcommand: str) -> None:
        pass


def _recipe_elsewhere(
    cli_class: type[CommandLine], given: tuple[tuple[Any, ...], dict[str, Any]], subcommand: str, base: dict[str, Any]
) -> ConfigRecipe:
    """Make the recipe of a command line in another process, without running the command."""
    words, options = given
    arguments, sys.argv = sys.argv, sys.argv[:1]  # LightningCLI warns of words beside `args`
    try:
        prepared = type(cli_class.__name__, (_Prepared, cli_class), {})
        cli = prepared(*words, **{**options, "args": {"subcommand": subcommand, subcommand: base}})
    finally:
        sys.argv = arguments
    recipe = ConfigRecipe(cli)
    recipe.base = base
    return recipe


def _arguments(node: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a class in a configuration, or the node itself if it is none."""
    return node["init_args"] if "class_path" in node and "init_args" in node else node


def _keys(node: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """All keys of the configuration in the form that settings use."""
    for name, value in _arguments(dict(node)).items():
        if not prefix and name in ("plan", "seed_everything", "config", *_OF_COMMANDS):
            continue
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
