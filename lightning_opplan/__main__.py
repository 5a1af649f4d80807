"""Run the command line by `python -m lightning_opplan`."""

from lightning_opplan.cli import main

if __name__ == "__main__":
    main()
