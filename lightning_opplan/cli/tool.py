"""What a subcommand is that needs neither a model nor data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jsonargparse import ArgumentParser, Namespace

__all__ = ["Program", "ProgramTool", "Tool", "add_list", "flat"]


class Program(Protocol):
    """What a `ProgramTool` may ask of the program that it is part of."""

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
        summary: What it does, in one sentence.
        add_arguments: Adds its arguments to a parser.
        run: Does it, with the values of the arguments.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


@dataclass(frozen=True)
class ProgramTool:
    """A subcommand that runs others, or knows of them.

    Attributes:
        summary: What it does, in one sentence.
        add_arguments: Adds its arguments to a parser.
        run: Does it, with the values of the arguments and the program.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Program], None]


def add_list(parser: ArgumentParser, name: str, kind: Any, **options: Any) -> None:
    """Add an option of several values, given one after the other or as a list, as a configuration has it.

    It takes all words up to the next option, so it stands behind those that have none.

    Args:
        parser: The parser.
        name: The option.
        kind: Type of a value.
        **options: As of ``add_argument``.
    """
    # What may be text is tried as a list first.
    parser.add_argument(name, nargs="+", type=list[kind] | kind, **options)


def flat(values: Sequence[Any] | None) -> list[Any] | None:
    """Return the values of such an option, however they were given."""
    if values is None:
        return None
    return [each for value in values for each in (value if isinstance(value, list) else [value])]
