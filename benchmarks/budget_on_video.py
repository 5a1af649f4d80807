"""A budgeted search with its delivery beside controls of the same cost, on video clips, over seeds.

The search has a configuration whose own learning rate nobody has tuned (0.01, the default of `VideoClassifier`); a
control has one of several rates, as if somebody had guessed it: one training per sampling on all data, constant and
then linear to zero, scores fused. Top-1 on the test set, all views.

    python benchmarks/budget_on_video.py demo --seeds 0 1 2 3 4 --out runs/demo-budget
    python benchmarks/budget_on_video.py cctv --root <cctv_direction4> --seeds 0 1 2 --out runs/cctv-budget
    python benchmarks/budget_on_video.py demo --out runs/demo-budget --table

Started again, it goes on. A budget is one and a half times what the paper's search took on the clips.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_opplan.cli import ConfigRecipe, main
from lightning_opplan.planning.options import PlanOptions
from lightning_opplan.tuner import PathSearchTuner, run_control, run_delivery, score_ensemble

CONFIGS = Path(__file__).parent.parent / "configs"
RATES = (0.2, 0.05, 0.0125, 0.003)
RATE = "model.learning_rate"
GRAPH = {
    "branches": {name: {"data.sampling": name} for name in ("consecutive", "uniform")},
    "choices": {RATE: list(RATES)},
}
SMALL_CCTV = [
    "--data.init_args.short_side", "[32, 36]", "--data.init_args.crop_size", "32", "--data.init_args.flip", "false",
    "--model.init_args.learning_rate", "0.01", "--plan.graph", json.dumps({**GRAPH, "axes": None}),
]  # fmt: skip
TASKS: dict[str, tuple[str, float, list[str]]] = {
    "demo": ("demo.yaml", 250, []),
    "cctv": ("cctv_direction4.yaml", 400, SMALL_CCTV),
}
"""Configuration, budget in epochs, and further arguments."""


def words_of(task: str, root: str, seed: int, folder: Path) -> list[str]:
    name, budget, further = TASKS[task]
    return [
        "plan", "--config", str(CONFIGS / name), "--seed_everything", str(seed), "--plan.dirpath", str(folder),
        "--data.init_args.root", root, "--plan.budget.epochs", str(budget), "--plan.progress", "false", *further,
    ]  # fmt: skip


def scored(file: Path, recipe: ConfigRecipe) -> dict[str, Any]:
    results = file.with_name("test.json")
    if results.is_file():
        return json.loads(results.read_text())
    return score_ensemble(file, recipe)


def run(task: str, root: str, seed: int, out: Path) -> None:
    """Search, deliver, and train the control of every rate, as far as that has not been done."""
    folder = out / str(seed)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        cli = main(words_of(task, root, seed, folder))
        options: PlanOptions = cli.plan_options()
        recipe = ConfigRecipe(cli)
        tuner = PathSearchTuner(
            options.graph.space(), recipe=recipe, monitor=options.monitor, mode=options.mode, dirpath=folder,
            options=options, executor=options.executor, seed=seed,
        )  # fmt: skip
        scored(folder / "ensemble.yaml", recipe)
        scored(run_delivery(tuner, setting=options.final_setting).ensembles[""], recipe)
        for rate in RATES:
            kept = folder / f"control-{rate:g}"
            if not kept.is_dir():
                setting = {**options.final_setting, RATE: rate}
                control = run_control(tuner, schedules=["linear"], setting=setting)
                scored(control.ensembles["linear"], recipe)
                (folder / "control").rename(kept)


def results(out: Path) -> dict[str, dict[int, float]]:
    """Top-1 in percent by what was tested and seed."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(out.glob("*/**/test.json")):
        seed, *place = file.relative_to(out).parts[:-1]
        name = {"": "searched", "deliver": "delivered"}.get("/".join(place), "/".join(place))
        found.setdefault(name, {})[int(seed)] = 100 * json.loads(file.read_text())["ensemble"]["test/top1"]
    return found


def with_error(values: list[float]) -> str:
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.1f} ± {error:.1f}"


def print_table(out: Path, console: Console) -> None:
    found = results(out)
    delivered = found.get("delivered", {})
    table = Table(title=f"{out}: top-1, mean ± standard error over seeds", title_justify="left")
    for column in ("", "seeds", "top-1", "delivered, beside it"):
        table.add_column(column, justify="left" if not column else "right")
    for name, by_seed in found.items():
        both = sorted(set(by_seed) & set(delivered))
        beside = "" if name == "delivered" or not both else with_error([delivered[s] - by_seed[s] for s in both])
        table.add_row(name, str(len(by_seed)), with_error(list(by_seed.values())), beside)
    console.print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--root", help="Folder of the clips; those of the demo are drawn if there are none.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="Print what is there, and train nothing.")
    return parser.parse_args()


if __name__ == "__main__":
    arguments, console = parse(), Console()
    console.print("$ python", *sys.argv, highlight=False)
    sys.argv = sys.argv[:1]
    for one in () if arguments.table else arguments.seeds:
        run(arguments.task, arguments.root or f"{arguments.out}-videos", one, arguments.out)
        print_table(arguments.out, console)
    print_table(arguments.out, console)
