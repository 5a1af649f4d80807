"""The command line, and the recipe that makes experiments from its configuration."""

from lightning_opplan.cli.command_line import OpplanCLI
from lightning_opplan.cli.entry import main
from lightning_opplan.cli.recipe import ConfigRecipe

__all__ = ["ConfigRecipe", "OpplanCLI", "main"]
