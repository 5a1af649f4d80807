"""Standard output as it is: what it cannot encode is replaced, and once nobody reads it any more, nothing is lost."""

import os
import sys
from typing import Any

from rich.console import Console

__all__ = ["say", "standard_console"]


class _Forgiving:
    """The standard output of the moment; writing to it never fails."""

    def write(self, text: str) -> int:
        stream = sys.stdout
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = stream.encoding or "ascii"
                stream.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError):
            _discard()
        return len(text)

    def flush(self) -> None:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


def standard_console() -> Console:
    """Return a console for standard output."""
    stream: Any = _Forgiving()
    return Console(file=stream)


def say(sentence: str) -> None:
    """Print a sentence as it is."""
    standard_console().print(sentence, highlight=False, markup=False, soft_wrap=True)


def _discard() -> None:
    """Let the rest of the output go nowhere: the reader has gone, and Python would fail at its own last flush."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # it is closed, or no file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
    finally:
        os.close(nowhere)
