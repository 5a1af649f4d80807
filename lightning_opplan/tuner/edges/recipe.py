"""From a state's setting to a fresh Trainer, model and data."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from typing_extensions import override

from lightning_opplan.messages import suggestion
from lightning_opplan.planning.graph import Setting
from lightning_opplan.tuner.edges.code import described

__all__ = ["RIGHT_FORM", "Experiment", "FactoryRecipe", "Recipe", "check_setting_keys"]

RIGHT_FORM: Final = "Write `lambda callbacks, **kw: Trainer(callbacks=[*callbacks, …], **kw)`."
"""How a function that makes a Trainer has to be written."""

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

    def build_model(self, setting: Setting) -> LightningModule:
        """Make a model under a setting and nothing else, as far as that can be."""

    def build_data(self, setting: Setting) -> Any:
        """Make data under a setting and nothing else."""

    def describe(self) -> Mapping[str, Any]:
        """Return what the results depend on beside the settings and the code, as plain values."""

    def code(self) -> Iterable[Any]:
        """Return the functions and classes that the results depend on, that of the model first."""

    def values_of(self, keys: Iterable[str]) -> Setting:
        """Return what the configuration itself has for some keys, as far as it is known."""


@dataclass(frozen=True, kw_only=True)
class FactoryRecipe:
    """Three functions, or classes, that take hyper-parameters by keyword.

    Attributes:
        model: Returns a LightningModule.
        data: Returns a LightningDataModule, or a tuple of loaders for training and validation; ``None`` for a model
            that has loaders of its own.
        trainer: Returns a Trainer; must pass on `callbacks` and `default_root_dir`.
    """

    model: Callable[..., LightningModule]
    data: Callable[..., Any] | None = None
    trainer: Callable[..., Trainer]

    def __post_init__(self) -> None:
        for name in self._named:
            given = getattr(self, name)
            if not callable(given) or isinstance(given, LightningModule | LightningDataModule | Trainer):
                raise ValueError(
                    f"`{name}` must be a function or class that makes a new one for every edge, got an object of "
                    f"{type(given).__name__}. Pass the class, or `lambda **kw: {type(given).__name__}(…, **kw)`."
                )

        try:
            inspect.signature(self.trainer).bind_partial(callbacks=[], default_root_dir="")
        except TypeError:
            raise ValueError(
                f"`trainer` must take `callbacks` and `default_root_dir`, got a function that does not. {RIGHT_FORM}"
            ) from None

    @property
    def _named(self) -> tuple[str, ...]:
        return ("model", "trainer") if self.data is None else ("model", "data", "trainer")

    def check(self, settings: Iterable[Setting]) -> None:
        """See `Recipe`."""
        valid: list[str] = []
        required: list[str] = []
        open_prefixes = []
        for name in self._named:
            parameters = inspect.signature(getattr(self, name)).parameters.values()
            named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            valid += [f"{name}.{parameter}" for parameter in named]
            required += [
                f"{name}.{p.name}"
                for p in parameters
                if p.name in named and p.default is p.empty and p.name not in ("callbacks", "default_root_dir")
            ]
            if any(p.kind == p.VAR_KEYWORD for p in parameters):
                open_prefixes.append(f"{name}.")
        for setting in settings:
            check_setting_keys(setting, valid, open_prefixes=tuple(open_prefixes))
            lacking = [key for key in required if key not in setting]
            if lacking:
                target, _, argument = lacking[0].partition(".")
                raise ValueError(
                    f"`{target}` must have a default for `{argument}`, or every setting a value, got "
                    f"{dict(setting)!r}."
                )
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
            data=None if self.data is None else _with_loaders(self.data(**options["data"])),
            trainer=self._trainer(callbacks=list(callbacks), default_root_dir=folder, **options["trainer"]),
        )

    def build_model(self, setting: Setting) -> LightningModule:
        """See `Recipe`."""
        return self.model(**{key.partition(".")[2]: value for key, value in setting.items() if key[:6] == "model."})

    def build_data(self, setting: Setting) -> Any:
        """See `Recipe`."""
        options = {key.partition(".")[2]: value for key, value in setting.items() if key[:5] == "data."}
        return None if self.data is None else self.data(**options)

    def build_trainer(self, folder: str, devices: int | None = None) -> Trainer:
        """See `Recipe`."""
        return self._trainer(callbacks=[], default_root_dir=folder, **_on(devices))

    def _trainer(self, **options: Any) -> Trainer:
        try:
            return self.trainer(**options)
        except TypeError as error:
            if "multiple values" not in str(error):
                raise
            raise ValueError(f"`trainer` must pass on what it is given, once: {error}. {RIGHT_FORM}") from error

    def describe(self) -> Mapping[str, Any]:
        """See `Recipe`."""
        # An address in memory is another one in the next process.
        return {name: described(getattr(self, name)) for name in self._named}

    def code(self) -> Iterable[Any]:
        """See `Recipe`."""
        return [getattr(self, name) for name in self._named]

    def values_of(self, keys: Iterable[str]) -> Setting:
        """See `Recipe`: defaults of the factories' arguments."""
        found = {}
        for key in keys:
            target, _, name = key.partition(".")
            factory = getattr(self, target, None) or (lambda: None)
            parameter = inspect.signature(factory).parameters.get(name)
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
            plain = key.replace(".init_args.", ".")
            hint = f"Did you mean {plain!r}?" if plain != key and plain in valid else suggestion(key, valid)
            raise ValueError(f"A setting must name hyper-parameters of the configuration, got {key!r}. {hint}")


def _on(devices: int | None) -> dict[str, Any]:
    return {} if devices is None else {"devices": devices}


class _Loaders(LightningDataModule):
    """Loaders for training and validation, and perhaps for a test, in the form that experiments have."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        super().__init__()
        self._loaders = loaders

    @override
    def train_dataloader(self) -> Any:
        return self._loaders[0]

    @override
    def val_dataloader(self) -> Any:
        return self._loaders[1]

    @override
    def test_dataloader(self) -> Any:
        return self._loaders[2] if len(self._loaders) > 2 else []


def _with_loaders(made: Any) -> Any:
    """What a function for data has made, as a DataModule."""
    if made is None or isinstance(made, LightningDataModule):
        return made
    if isinstance(made, tuple) and len(made) in (2, 3):
        return _Loaders(made)
    raise ValueError(
        "`data` must return a LightningDataModule, or a tuple of loaders for training, validation and, if there is "
        f"one, test, got {type(made).__name__}."
    )
