"""From a state's setting to a fresh Trainer, model and data."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from lightning_opplan.messages import suggestion
from lightning_opplan.planning.graph import Setting

__all__ = ["Experiment", "FactoryRecipe", "Recipe", "check_setting_keys"]

_FIXED: Final = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a fit needs, made for it alone."""

    trainer: Trainer
    model: LightningModule
    data: Any


class Recipe(Protocol):
    """Makes fresh experiments. Trainers, callbacks and loggers do not survive a second fit, so none is shared."""

    def check(self, settings: Iterable[Setting]) -> None:
        """Raise a `ValueError` for a key or value that a setting must not have, before any training."""

    def build(
        self, setting: Setting, *, callbacks: Sequence[Callback], folder: str, devices: int | None = None
    ) -> Experiment:
        """Make an experiment under a setting, with further callbacks, that writes below a folder.

        Args:
            setting: The state's setting.
            callbacks: For the Trainer, beside its own.
            folder: Its `default_root_dir`.
            devices: Number of devices, if it is not the Trainer's own.
        """

    def build_trainer(self, folder: str, devices: int | None = None) -> Trainer:
        """Make a Trainer of the base configuration, to start its processes and no more."""

    def describe(self) -> Mapping[str, Any]:
        """Return what the results depend on beside the settings, as plain values."""

    def values_of(self, keys: Iterable[str]) -> Setting:
        """Return what the configuration itself has for some keys, as far as it is known."""


@dataclass(frozen=True, kw_only=True)
class FactoryRecipe:
    """Three functions, or classes, that take hyper-parameters by keyword.

    Attributes:
        model: Returns a LightningModule.
        data: Returns a LightningDataModule.
        trainer: Returns a Trainer; must pass on `callbacks` and `default_root_dir`.
    """

    model: Callable[..., LightningModule]
    data: Callable[..., LightningDataModule]
    trainer: Callable[..., Trainer]

    def __post_init__(self) -> None:
        for name in ("model", "data", "trainer"):
            given = getattr(self, name)
            if not callable(given) or isinstance(given, LightningModule | LightningDataModule | Trainer):
                raise ValueError(
                    f"`{name}` must be a function or class that makes a new one for every edge, got an object of "
                    f"{type(given).__name__}. Pass the class, or `lambda **kw: {type(given).__name__}(…, **kw)`."
                )

    def check(self, settings: Iterable[Setting]) -> None:
        """See `Recipe`."""
        valid: list[str] = []
        open_prefixes = []
        for name in ("model", "data", "trainer"):
            parameters = inspect.signature(getattr(self, name)).parameters.values()
            named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            valid += [f"{name}.{parameter}" for parameter in named]
            if any(p.kind == p.VAR_KEYWORD for p in parameters):
                open_prefixes.append(f"{name}.")
        for setting in settings:
            check_setting_keys(setting, valid, open_prefixes=tuple(open_prefixes))
            for key in ("trainer.callbacks", "trainer.default_root_dir"):
                if key in setting:
                    raise ValueError(f"`{key}` must be left to the tuner, got a setting that changes it.")

    def build(
        self, setting: Setting, *, callbacks: Sequence[Callback], folder: str, devices: int | None = None
    ) -> Experiment:
        """See `Recipe`."""
        options: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "trainer": _on(devices)}
        for key, value in setting.items():
            target, _, name = key.partition(".")
            options[target][name] = value
        return Experiment(
            model=self.model(**options["model"]),
            data=self.data(**options["data"]),
            trainer=self.trainer(**{"callbacks": list(callbacks), "default_root_dir": folder, **options["trainer"]}),
        )

    def build_trainer(self, folder: str, devices: int | None = None) -> Trainer:
        """See `Recipe`."""
        return self.trainer(callbacks=[], default_root_dir=folder, **_on(devices))

    def describe(self) -> Mapping[str, Any]:
        """See `Recipe`."""
        return {name: _described(getattr(self, name)) for name in ("model", "data", "trainer")}

    def values_of(self, keys: Iterable[str]) -> Setting:
        """See `Recipe`: defaults of the factories' arguments."""
        found = {}
        for key in keys:
            target, _, name = key.partition(".")
            parameter = inspect.signature(getattr(self, target, lambda: None)).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                found[key] = parameter.default
        return found


def check_setting_keys(setting: Setting, valid: Iterable[str], *, open_prefixes: tuple[str, ...] = ()) -> None:
    """Raise a `ValueError` for the first key that is not valid.

    Args:
        setting: A state's setting.
        valid: Keys that can be set.
        open_prefixes: Prefixes below which any key may be.
    """
    valid = list(valid)
    for key in setting:
        if key in _FIXED:
            raise ValueError(
                f"`{key}` must be the same for all states, got a setting that changes it. All edges run in one group "
                "of processes; set it in the base configuration."
            )
        if key not in valid and not key.startswith(open_prefixes or ("\0",)):
            raise ValueError(
                f"A setting must name hyper-parameters of the configuration, got {key!r}. " + suggestion(key, valid)
            )


def _on(devices: int | None) -> dict[str, Any]:
    return {} if devices is None else {"devices": devices}


def _described(factory: Callable[..., Any]) -> str:
    """Name a factory and the arguments that a `functools.partial` binds."""
    inner = getattr(factory, "func", factory)
    name = f"{inner.__module__}.{inner.__qualname__}" if hasattr(inner, "__qualname__") else type(inner).__qualname__
    bound = [repr(value) for value in getattr(factory, "args", ())]
    bound += [f"{key}={value!r}" for key, value in sorted(getattr(factory, "keywords", {}).items())]
    # An address in memory is another one in the next process.
    return f"{name}({', '.join(text for text in bound if ' at 0x' not in text)})"
