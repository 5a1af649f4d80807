"""Run a subcommand that only reads results."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from lightning_opplan.cli.errors import one_sentence
from lightning_opplan.cli.help import EXAMPLES, HelpFormatter
from lightning_opplan.cli.light_tools import LIGHT_TOOLS

__all__ = ["run_light"]


def run_light(words: Sequence[str]) -> bool:
    """Run a command line if it is one of `LIGHT_TOOLS`, as `main` does; returns whether it is.

    Args:
        words: Words of the command line, the subcommand first.
    """
    tool = LIGHT_TOOLS.get(words[0]) if words else None
    if tool is None:
        return False
    description = "\n".join([tool.summary, EXAMPLES.get(words[0], "")])
    parser = ArgumentParser(prog=f"opplan {words[0]}", description=description, formatter_class=HelpFormatter)
    parser.add_argument("-c", "--config", action="config", help="Path to a configuration file in json or yaml format.")
    tool.add_arguments(parser)
    with one_sentence():
        tool.run(parser.parse_args(words[1:]))
    return True
