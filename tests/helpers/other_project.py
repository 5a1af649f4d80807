"""A project that knows nothing of planning: a plain LightningCLI around a module of its own. Run as a script."""

import json
import os
from pathlib import Path

from lightning.pytorch.cli import LightningCLI

from tests.helpers.scripted import Points, Scripted


def main() -> None:
    cli = LightningCLI(Scripted, Points, run=False)
    cli.trainer.fit(cli.model, cli.datamodule)
    (stopping,) = [callback for callback in cli.trainer.callbacks if type(callback).__name__ == "KneeStopping"]
    rank = cli.trainer.global_rank
    result = [
        cli.trainer.current_epoch,
        stopping.knee_epoch,
        stopping.knee_value,
        os.path.basename(stopping.knee_path),
    ]
    Path(cli.trainer.default_root_dir, f"rank-{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
