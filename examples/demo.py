"""The demo: a budget, a search within it, what it found delivered, and the control that shows what planning was worth.

All of it is commands that a user would type, on clips that are drawn, encoded to MP4 and decoded again.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from lightning_opplan.cli import main

CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"


def command(console: Console, *words: str) -> None:
    console.print(f"\n[bold]$ opplan {' '.join(words)}[/bold]", highlight=False, soft_wrap=True)
    main([*words])


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dirpath", default="runs/demo", help="Folder for everything that the demo writes.")
    options, overrides = parser.parse_known_args()
    folder = Path(options.dirpath)
    sys.argv = sys.argv[:1]  # LightningCLI takes words either from there or as arguments
    console = Console()
    started = time.monotonic()
    config = ["--config", str(CONFIG), "--plan.dirpath", str(folder), "--data.init_args.root", f"{folder}-videos"]
    config += overrides

    command(console, "plan", *config)
    command(console, "deliver", *config)
    command(console, "control", *config)
    for place in ("", "deliver", "control"):
        command(console, "test", *config, "--ensemble", str(folder / place / "ensemble.yaml"))
    console.print(f"Report: {folder / 'report.html'}", highlight=False)
    console.print(f"The demo took {time.monotonic() - started:.0f} s.", highlight=False)


if __name__ == "__main__":
    run()
