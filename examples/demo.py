"""The demo: plan on drawn clips, follow the path, test it, and compare it with training in any single state.

The first three are the commands that a user would type. The comparison trains every state of the graph by itself, for
as many epochs as the whole path, on the same data and with the same code.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_opplan.cli import ConfigRecipe, main
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.tuner.edges.checkpoints import load_weights
from lightning_opplan.tuner.edges.training import hushed
from lightning_opplan.tuner.follow import follow_path

CONFIG = Path(__file__).parent.parent / "configs" / "demo.yaml"


def command(console: Console, *words: str) -> object:
    console.print(f"\n[bold]$ opplan {' '.join(words)}[/bold]", highlight=False, soft_wrap=True)
    return main([*words])


def test_accuracy(recipe: ConfigRecipe, setting: dict[str, object], weights: Path) -> float:
    """Top-1 accuracy on the test set, over several views of each video."""
    with hushed():
        experiment = recipe.build(setting, callbacks=[], folder=str(weights.parent))
        load_weights(experiment.model, str(weights))
        (metrics,) = experiment.trainer.test(experiment.model, experiment.data, verbose=False)
    return metrics["test/top1"]


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dirpath", default="runs/demo", help="Folder for everything that the demo writes.")
    options, overrides = parser.parse_known_args()
    folder = Path(options.dirpath)
    sys.argv = sys.argv[:1]  # LightningCLI takes words either from there or as arguments
    console = Console()
    started = time.monotonic()
    config = [
        "--config",
        str(CONFIG),
        "--plan.dirpath",
        str(folder),
        "--data.init_args.root",
        f"{folder}-videos",
        *overrides,
    ]

    cli = command(console, "plan", *config)
    command(console, "follow", *config, "--path", str(folder / "path.yaml"))
    follow = folder / "follow"
    command(console, "test", "--config", str(follow / "config.yaml"), "--ckpt_path", str(follow / "weights.ckpt"))

    path = OptimizationPath.load(folder / "path.yaml")
    recipe = ConfigRecipe(cli)
    final = cli.plan_options().final_setting
    graph = cli.plan_options().graph.build()
    last = graph.settings[path.steps[-1].state]
    results = {str(path): test_accuracy(recipe, {**last, **final}, folder / "follow" / "weights.ckpt")}
    branch = path.steps[-1].state.partition("/")[0]
    console.print(f"\nEvery state of the branch {branch!r} by itself, for {path.total_epochs:g} epochs:")
    for state in (state for state in graph.states if state.startswith(f"{branch}/")):
        alone = OptimizationPath(
            steps=(PathStep(state=state, epochs=path.total_epochs, setting=graph.settings[state]),)
        )
        place = folder / "alone" / state.replace("/", ".")
        weights = follow_path(alone, recipe, dirpath=place, setting=final, progress=False)
        results[state] = test_accuracy(recipe, {**graph.settings[state], **final}, weights)
        console.print(f"  {state}: {results[state]:.1%}", highlight=False)

    _, *alone_results = results.values()
    table = Table(title=f"Test accuracy (top-1), {path.total_epochs:g} epochs each", title_justify="left")
    table.add_column("training")
    table.add_column("accuracy", justify="right")
    table.add_row(f"the path: {path}", f"{results[str(path)]:.1%}", style="bold green")
    best = max(alone_results)
    for state, accuracy in results.items():
        if state != str(path) and accuracy == best:
            table.add_row(f"the best single state: {state}", f"{accuracy:.1%}")
    console.print(table)
    console.print(f"Report: {folder / 'report.html'}", highlight=False)
    console.print(f"The demo took {time.monotonic() - started:.0f} s.", highlight=False)


if __name__ == "__main__":
    run()
