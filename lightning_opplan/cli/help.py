"""How the command line explains itself: what is our own comes first, with an example on top."""

from argparse import Action
from collections.abc import Iterable
from typing import Final

from jsonargparse import DefaultHelpFormatter
from typing_extensions import override

__all__ = ["DESCRIPTION", "EXAMPLES", "USAGE", "HelpFormatter"]

DESCRIPTION: Final = """\
Plan in which order a training changes its hyper-parameters, and after how many epochs.

  opplan plan   --config mine.yaml                               search; started again, it goes on
  opplan watch  runs/mine                                        look on in a browser
  opplan follow --config mine.yaml --path runs/mine/path.yaml    train along the path that was found
  opplan test   --config runs/mine/follow/config.yaml --ckpt_path runs/mine/follow/weights.ckpt

`opplan COMMAND --help` explains a command. The last four of them are Lightning's own."""

USAGE: Final = "%(prog)s [-c CONFIG] [--GROUP.NAME VALUE ...]"
"""In place of a line for each of Lightning's hundred options, which stand below with what they mean."""

_PLAN: Final = """
  opplan plan --config mine.yaml --plan.dirpath runs/mine --plan.monitor val/accuracy

where mine.yaml has model, data and trainer as for `opplan fit`, and

  plan:
    graph:
      axes:
        - {name: batch, reversible: true, settings: [{data.batch_size: 16}, {data.batch_size: 64}]}
        - {name: rate, settings: [{model.learning_rate: 0.1}, {model.learning_rate: 0.01}]}

With `budget: {epochs: 600}` in `plan` settings are searched by halving under a budget instead. `--dry-run` says what
the search will cost. Options of the search come first; those of Lightning's Trainer, model and data after them."""

EXAMPLES: Final = {
    "plan": _PLAN,
    "follow": "\n  opplan follow --config mine.yaml --path runs/mine/path.yaml",
    "deliver": "\n  opplan deliver --config mine.yaml",
    "control": "\n  opplan control --config mine.yaml",
    "grid": "\n  opplan grid --config mine.yaml",
    "study": "\n  opplan study --config mine.yaml",
    "report": "\n  opplan report runs/mine --figures pictures --format pdf",
    "watch": "\n  opplan watch runs/mine",
    "export": (
        "\n  opplan export runs/mine --format parquet --out tables"
        "\n  opplan export runs/mine --format optuna --out study.log"
    ),
    "completion": "\n  opplan completion bash > ~/.local/share/bash-completion/completions/opplan",
}
"""What stands below the first line of a command's help."""


_LEADING: Final = ("plan.dirpath", "plan.monitor", "plan.mode")


class HelpFormatter(DefaultHelpFormatter):
    """Leaves the lines of descriptions as they are, and begins with the options that everybody sets."""

    @override
    def add_arguments(self, actions: Iterable[Action]) -> None:
        super().add_arguments(sorted(actions, key=lambda action: action.dest not in _LEADING))

    @override
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())
