"""Run the command line."""

import warnings

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_opplan.cli.command_line import OpplanCLI
from lightning_opplan.cli.errors import one_sentence

__all__ = ["main"]


def main(args: list[str] | None = None) -> OpplanCLI:
    """Run the command line; ends the process with a status other than 0 and one sentence if something is wrong.

    Args:
        args: Words of the command line; by default those of the process.

    Returns:
        The command line after its work, with `trainer`, `model` and `result`.
    """
    # Lightning's own, on every call of it with newer versions of torch.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # What is left of a notebook's or a script's own words is none of ours, and its processes need them.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    with one_sentence():
        try:
            # Without a class for data, as a model may have loaders of its own.
            return OpplanCLI(LightningModule, subclass_mode_model=True, args=args)
        except SIGTERMException:
            raise SystemExit(143) from None  # as a shell reports it; Lightning would say 0
