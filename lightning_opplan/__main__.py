"""Run the command line: `opplan`, or `python -m lightning_opplan`."""

import os
import sys

from lightning_opplan.cli.light import run_light


def run() -> None:
    """Run it for the words of this process; the entry point returns nothing that a shell could take for a status."""
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())  # as `python -m` has it: classes may be in a script here
    if not run_light(sys.argv[1:]):
        from lightning_opplan.cli import main  # takes seconds to import

        main()


if __name__ == "__main__":
    run()
