"""The command line, and the recipe that makes experiments from its configuration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning_opplan.cli.command_line import OpplanCLI
    from lightning_opplan.cli.entry import main
    from lightning_opplan.cli.recipe import ConfigRecipe

__all__ = ["ConfigRecipe", "OpplanCLI", "main"]

# Imported at first use: commands that only read results need neither torch nor Lightning.
_PLACES: Final = {"ConfigRecipe": "recipe", "OpplanCLI": "command_line", "main": "entry"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value
