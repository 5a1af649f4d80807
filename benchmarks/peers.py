"""Ways to find a training schedule, side by side at an equal training budget, with the same LightningModules.

    pip install 'lightning-opplan[bench]'
    python benchmarks/peers.py --out runs/peers.jsonl --jobs 2      # appends the rows that are missing
    python benchmarks/peers.py --out runs/peers.jsonl --table       # prints what is there
    python benchmarks/peers.py --calibrate                          # the unit of the budgets

Three tasks, each with an ordered axis of three settings, four learning rates and four weight decays: 48 settings. A
budget counts epochs over the training part; one over the training and validation parts counts by its samples, and
validation is free. The unit B is what the paper's search costs on a task, the median of four seeds.

- searched: the whole budget is searched; the best single model by validation;
- retrained: 40% is searched, and what was found is trained anew once on the training and validation parts;
- ensemble: the same as often as the rest of the budget allows, at most eight times; probabilities are averaged.

planned     the search of this package with a budget, over all 48 settings, and its own delivery; the default setting
            is one of its arms
paper       the paper's search: the axis, rates of .1, .01 and .001, a decay of 1e-4; the best so far at the budget
paper_avg2  the same with rates of .1 and .01, and averaged weights
paper_fast  the paper's search by the preset `fast`; paper_wait: waiting for late starters
cos8, wsd8  random search of eight: cosine; constant, then linear to zero over the last 30%
avg8        random search of eight at a constant rate, with averaged weights
one_epoch   every setting for one epoch, then the best with the rest of the budget
plateau     one training of the default setting, ReduceLROnPlateau and EarlyStopping; stops when it stops
plateau_restarts  the same with random settings, until the budget is spent
optuna      TPE with HyperbandPruner; ray_pbt, ray_asha: Ray Tune's schedulers

By name only, what the planned search owes to its parts: no_halving, fixed_decay (1e-4), fixed_window (averages over
two epochs), share_25 and share_60 (of the budget for the search, where something is delivered; 40% otherwise).
"""

import argparse
import os
import shlex
import statistics
import sys
import time
from pathlib import Path

from peers.rows import ABLATIONS, BUDGETS, RIVALS, fill, numbers, prepare, read, units
from peers.table import print_tables

CALIBRATION_SEEDS = range(100, 104)


def calibrate(tasks: list[str], seeds: list[int]) -> None:
    """Print what the paper's search costs if nothing stops it."""
    prepare()
    from peers.plans import paper
    from peers.tasks import TASKS

    for name in tasks:
        costs = []
        for seed in seeds:
            began = time.perf_counter()
            costs.append(paper(TASKS[name].of(seed), None, seed).spent)
            print(f"{name} seed {seed}: {costs[-1]} epochs, {time.perf_counter() - began:.0f} s", flush=True)
        print(f"{name}: {statistics.median(costs):.0f} epochs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/peers.jsonl"))
    parser.add_argument("--tasks", nargs="+", help="By default all.")
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), choices=[*RIVALS, *ABLATIONS])
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS), help="In units of B.")
    parser.add_argument("--seeds", nargs="+", type=numbers, help="Such as 0-3 6; by default those of the task.")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    seeds = [seed for some in options.seeds or () for seed in some]
    if options.table:
        rows = [
            row
            for row in read(options.out)
            if row["rival"] in options.rivals
            and row["budget"] in options.budgets
            and (not options.tasks or row["task"] in options.tasks)
            and (not seeds or row["seed"] in seeds)
        ]
        print_tables(rows, f"python {shlex.join(sys.argv)}")
        return
    from peers.tasks import TASKS

    tasks = options.tasks or list(TASKS)
    unknown = set(tasks).difference(TASKS)
    if unknown:
        parser.error(f"`--tasks` must be of {', '.join(TASKS)}, got {', '.join(sorted(unknown))}")
    if options.calibrate:
        calibrate(tasks, seeds or list(CALIBRATION_SEEDS))
        return
    every = {name: seeds or TASKS[name].seeds for name in tasks}
    print(f"$ python {shlex.join(sys.argv)}\n{os.cpu_count()} cores", flush=True)
    fill(options.out, units(tasks, options.rivals, options.budgets, every), options.jobs)


if __name__ == "__main__":
    main()
