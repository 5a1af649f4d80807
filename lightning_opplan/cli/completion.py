"""Scripts by which a shell completes commands and options."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping
from typing import Final, Literal

from jsonargparse import ArgumentParser as TypedParser
from jsonargparse import Namespace

from lightning_opplan.cli.tool import Program, ProgramTool
from lightning_opplan.messages import OpplanError

__all__ = ["COMPLETION", "Shell", "completion_script"]

_FILES: Final = ("ckpt_path", "config", "ensemble", "path")

Shell = Literal["bash", "zsh", "tcsh"]


def completion_script(program: str, parsers: Mapping[str, ArgumentParser], shell: Shell) -> str:
    """Write the script by which a shell completes the commands of a program and their options.

    It is made once and knows all, so that no press of the tab key starts the program. jsonargparse's own script has
    the arguments of every class that any argument could name, too: hundreds of megabytes here.

    Args:
        program: Name of the program.
        parsers: Parsers of its commands.
        shell: The shell.

    Raises:
        OpplanError: If shtab is not installed.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise OpplanError("`opplan completion` needs shtab: pip install 'lightning-opplan[completion]'.") from None
    whole = ArgumentParser(prog=program)
    commands = whole.add_subparsers()
    for name, parser in parsers.items():
        # A summary in zsh's menu; its syntax takes colons for separators.
        summary = (parser.description or "").strip().partition("\n")[0].replace(":", ",")
        command = commands.add_parser(name, help=summary.replace("%", "%%"))
        for action in parser._actions:
            words = [word for word in action.option_strings if word not in ("-h", "--help")]
            if words and action.help != SUPPRESS:
                added = command.add_argument(*words, dest=words[-1], choices=action.choices)
                if action.dest in _FILES:
                    added.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(whole, shell=shell)
    return script


def _add_completion(parser: TypedParser) -> None:
    parser.add_argument("shell", type=Shell, help="The shell.")


def _completion(values: Namespace, program: Program) -> None:
    print(completion_script("opplan", program.parsers_of_commands, values.shell))


COMPLETION: Final = ProgramTool(
    "Print a script by which the shell completes commands and options.", _add_completion, _completion
)
