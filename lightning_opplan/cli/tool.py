"""What a subcommand is that needs neither a model nor data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jsonargparse import ArgumentParser, Namespace

__all__ = ["Program", "Tool"]


class Program(Protocol):
    """What a tool may ask of the program that it is part of."""

    further: list[str]
    """The words after ``--``."""

    @property
    def parsers_of_commands(self) -> Mapping[str, ArgumentParser]:
        """The parsers of all subcommands."""

    def main(self, words: list[str]) -> Any:
        """Run another command line of this program, and return what ran it."""


@dataclass(frozen=True)
class Tool:
    """A subcommand.

    Attributes:
        add_arguments: Adds its arguments to a parser.
        run: Does it, with the values of the arguments and the program.
    """

    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Program], None]
