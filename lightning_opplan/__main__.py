"""Run the command line: `opplan`, or `python -m lightning_opplan`."""

from lightning_opplan.cli import main


def run() -> None:
    """Run it for the words of this process; the entry point returns nothing that a shell could take for a status."""
    main()


if __name__ == "__main__":
    run()
