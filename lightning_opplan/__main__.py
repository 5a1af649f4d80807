"""Run the command line: `opplan`, or `python -m lightning_opplan`."""

import os
import sys

from lightning_opplan.cli import main


def run() -> None:
    """Run it for the words of this process; the entry point returns nothing that a shell could take for a status."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())  # as `python -m` has it: classes may be in a script here
    main()


if __name__ == "__main__":
    run()
