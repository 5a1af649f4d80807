"""Planning against the hand-tuned grid on the demo's clips: accuracy and cost side by side, for some seeds.

Both are trained on the same training clips and chosen on the same validation clips; the networks that they end with
are tested on the same test clips, several views each.

    python benchmarks/planned_and_hand_tuned.py --seeds 0 1 2 --epochs 12 24 36
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lightning_opplan.cli import ConfigRecipe, OpplanCLI, main
from lightning_opplan.reporting.comparison import comparison_of
from lightning_opplan.tuner.edges.checkpoints import load_weights
from lightning_opplan.tuner.edges.hush import hushed

CONFIG = Path(__file__).parent.parent / "configs" / "demo_paper.yaml"


def test_accuracy(cli: OpplanCLI) -> float:
    """Top-1 of the weights that a search ends with, under the last state's setting."""
    assert cli.result is not None
    weights = cli.result.weights
    setting = cli.result.path.steps[-1].setting
    with hushed():
        experiment = ConfigRecipe(cli).build(setting, callbacks=[], folder=str(weights.parent))
        load_weights(experiment.model, str(weights))
        (metrics,) = experiment.trainer.test(experiment.model, experiment.data, verbose=False)
    return float(metrics["test/top1"])


def one_seed(seed: int, folder: Path, epochs: list[int], overrides: list[str]) -> dict[str, Any]:
    words = ["--config", str(CONFIG), "--seed_everything", str(seed), "--plan.dirpath", str(folder)]
    words += ["--data.init_args.root", f"{folder.parent / 'videos'}", "--plan.num_threads", "1"]
    words += ["--plan.grid.epochs", json.dumps(epochs), *overrides]
    planned, tuned = test_accuracy(main(["plan", *words])), test_accuracy(main(["grid", *words]))
    found = comparison_of(folder)
    assert found.grid_best is not None
    assert found.grid is not None
    return {
        "seed": seed,
        "planned": planned,
        "planned_observed": found.path_observed,
        "planned_epochs": found.search.epochs,
        "planned_hours": found.search.device_hours,
        "tuned": tuned,
        "tuned_name": found.grid_best[0],
        "tuned_observed": found.grid_best[1],
        "tuned_epochs": found.grid.epochs,
        "tuned_hours": found.grid.device_hours,
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="*", default=[12, 24, 36])
    parser.add_argument("--dirpath", default="runs/planned_and_hand_tuned")
    options, overrides = parser.parse_known_args()
    sys.argv = sys.argv[:1]
    torch.set_num_threads(1)
    rows = [one_seed(seed, Path(options.dirpath) / str(seed), options.epochs, overrides) for seed in options.seeds]
    table = Table(title="Test accuracy (top-1), validation at the end, and what it took to find")
    costs = ["validation", "epochs", "time"]
    for name in ("seed", "planned", *costs, "hand-tuned", *costs, "best"):
        table.add_column(name, justify="right")
    for row in rows:
        cells = []
        for kind in ("planned", "tuned"):
            cells += [f"{row[kind]:.1%}", f"{row[f'{kind}_observed']:.4f}", f"{row[f'{kind}_epochs']:g}"]
            cells.append(f"{3600 * row[f'{kind}_hours']:.0f} s")
        table.add_row(str(row["seed"]), *cells, row["tuned_name"])
    Console(width=150).print(table)


if __name__ == "__main__":
    run()
