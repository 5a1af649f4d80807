"""The rows of the table: which there are, what is in them, and the file that they are appended to."""

import json
import logging
import multiprocessing
import os
import platform
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

READ_OUTS = {"searched": ("searched",), "delivered": ("retrained", "ensemble")}
"""What one unit of work writes rows of."""

BUDGETS = (1.0, 0.5, 0.25)
SEARCH_SHARE = 0.4
MAX_MEMBERS = 8
_FITS = 0.98  # of a member: budgets are cut to whole epochs here and there

RIVALS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "planned": ("plans", "planned", {}),
    "paper": ("plans", "paper", {}),
    "paper_avg2": ("plans", "paper_avg2", {}),
    "paper_fast": ("plans", "paper_fast", {}),
    "paper_wait": ("plans", "paper_wait", {}),
    "cos8": ("rivals", "random_search", {"shape": "cosine"}),
    "wsd8": ("rivals", "random_search", {"shape": "linear end"}),
    "avg8": ("rivals", "random_search", {"shape": "constant", "averaging": 0.2}),
    "one_epoch": ("rivals", "one_epoch", {}),
    "plateau": ("rivals", "plateau", {}),
    "plateau_restarts": ("rivals", "plateau_restarts", {}),
    "optuna": ("rivals", "tpe_hyperband", {}),
    "ray_pbt": ("ray_rivals", "population", {}),
    "ray_asha": ("ray_rivals", "asha", {}),
}
ABLATIONS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "no_halving": ("plans", "planned", {"ablation": "halving"}),
    "fixed_decay": ("plans", "planned", {"ablation": "decay"}),
    "fixed_window": ("plans", "planned", {"ablation": "window"}),
    "share_25": ("plans", "planned", {"share": 0.25}),
    "share_60": ("plans", "planned", {"share": 0.6}),
}
"""The planned search with something else; shares are those of the search where something is delivered."""
"""Module, function and its arguments; modules are imported when they are needed, as that takes seconds."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Work that is done at once: a search, and what is made of it.

    Attributes:
        budget: Share of the task's unit B.
        work: A key of `READ_OUTS`.
    """

    task: str
    rival: str
    budget: float
    seed: int
    work: str

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """The keys of its rows."""
        return [(self.task, self.rival, self.budget, self.seed, read_out) for read_out in READ_OUTS[self.work]]


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "rival", "budget", "seed", "read_out"))


def units(
    tasks: Iterable[str], rivals: Sequence[str], budgets: Sequence[float], seeds: Mapping[str, Sequence[int]]
) -> list[Unit]:
    """All work, seed by seed, so that what is there can be compared at any time."""
    every = [
        Unit(task=task, rival=rival, budget=budget, seed=seed, work=work)
        for task in tasks
        for seed in seeds[task]
        for budget in budgets
        for rival in rivals
        for work in READ_OUTS
    ]
    return sorted(every, key=lambda unit: unit.seed)


def read(file: Path) -> list[Row]:
    """Return the rows of a file; a line that a kill left half written is passed over."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{file}: passed over {line[:60]!r}")
    return rows


def fill(file: Path, wanted: Iterable[Unit], num_jobs: int) -> None:
    """Do the work whose rows are missing, and append them."""
    rows = read(file)
    check_budgets(file, rows)
    there = set(map(key, rows))
    missing = [unit for unit in wanted if not there.issuperset(unit.keys)]
    print(f"{len(missing)} of the units of work are missing", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with file.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    for number, rows in enumerate(done(missing, num_jobs), start=1):
        new = [row for row in rows if key(row) not in there]
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in new)
        last = rows[-1]
        name = f"{last['task']} {last['rival']} ×{last['budget']:g} seed {last['seed']}"
        scores = ", ".join(f"{row['read_out']} {row['test']:.4f}" for row in rows)
        print(f"{number}/{len(missing)} {name}: {scores} ({last['seconds']:.0f} s)", flush=True)


def check_budgets(file: Path, rows: Iterable[Row]) -> None:
    """Refuse to mix rows of different units B.

    Raises:
        ValueError: If a row was measured with another one.
    """
    from peers.tasks import TASKS

    for row in rows:
        budget = TASKS[row["task"]].budget * row["budget"]
        if row["epochs"] != budget:
            raise ValueError(
                f"`--out` must hold rows of the present budgets, got {str(file)!r}, where {row['task']} "
                f"×{row['budget']:g} has {row['epochs']:g} epochs in place of {budget:g}. Choose another file."
            )


def done(missing: Sequence[Unit], num_jobs: int) -> Iterator[list[Row]]:
    """The rows of each unit as it is done, in this process or in others that live as long as there is work."""
    if num_jobs == 1:
        prepare()
        yield from map(rows_of, missing)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_jobs, mp_context=context, initializer=prepare) as pool:
        futures = [pool.submit(rows_of, unit) for unit in missing]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def prepare() -> None:
    """Make this process ready for many trainings: one thread, and no announcements of Trainers."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def rows_of(unit: Unit) -> list[Row]:
    """Search with the whole budget, or with a part of it and train what was found anew with the rest."""
    from peers.tasks import TASKS
    from peers.training import accuracy

    began = time.perf_counter()
    task = TASKS[unit.task].of(unit.seed)
    budget = task.budget * unit.budget
    found, models = find(unit, 1.0 if unit.work == "searched" else SEARCH_SHARE)
    searched = time.perf_counter() - began
    row = {name: value for name, value in asdict(unit).items() if name != "work"} | {
        "epochs": budget, "spent": found.spent, "validation": found.value, "schedule": str(found.schedule),
        "schedule_epochs": found.schedule.epochs, "promised": found.promised, "search_seconds": searched,
        "machine": machine(),
    }  # fmt: skip
    if unit.work == "searched":
        results = {"searched": {"test": accuracy(task, found.model, part="test")}}
    elif models:  # it delivered them itself
        results = tested(task, models)
    else:
        results = delivered(unit, found)
    seconds = time.perf_counter() - began
    return [{**row, "read_out": read_out, "seconds": seconds, **result} for read_out, result in results.items()]


def find(unit: Unit, share: float) -> tuple[Any, Sequence[Any]]:
    """Let a rival search with a share of the budget; returns what it found, and what it delivered if it does so."""
    from peers.tasks import TASKS

    task = TASKS[unit.task].of(unit.seed)
    budget = task.budget * unit.budget
    module, name, given = {**RIVALS, **ABLATIONS}[unit.rival]
    rival, arguments = getattr(import_module(f"peers.{module}"), name), dict(given)
    if name == "planned":  # it plans what follows the search, too
        own_share = arguments.pop("share", share)
        searched = share if share == 1.0 else own_share
        both: tuple[Any, Sequence[Any]] = rival(task, budget, unit.seed, search_share=searched, **arguments)
        return both
    return rival(task, budget * share, unit.seed, **arguments), ()


def tested(task: Any, models: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """The first model alone, and all of them with their probabilities averaged."""
    from peers.training import accuracy

    tests = [accuracy(task, model, part="test") for model in models]
    ensemble = accuracy(task, *models, part="test")
    return {
        "retrained": {"test": tests[0], "members": 1},
        "ensemble": {"test": ensemble, "tests": tests, "members": len(models)},
    }


def delivered(unit: Unit, found: Any) -> dict[str, dict[str, Any]]:
    """Train what was found anew on all data, as often as the rest of the budget allows; shortened if not even once."""
    from peers.tasks import TASKS
    from peers.training import accuracy

    task = TASKS[unit.task].of(unit.seed)
    rest = task.budget * unit.budget - found.spent
    fits = rest / (found.schedule.epochs * task.price_of_all)
    count = min(max(int(fits + 1 - _FITS), 1), MAX_MEMBERS)
    schedule = found.schedule if fits >= _FITS else found.schedule.scaled(fits)
    members = [schedule.replay(task, 1_000_000 + 1000 * unit.seed + 100 * number) for number in range(count)]
    tests = [accuracy(task, member, part="test") for member in members]
    spent = found.spent + count * schedule.epochs * task.price_of_all
    ensemble = accuracy(task, *members, part="test")
    return {
        "retrained": {"test": tests[0], "scale": min(fits, 1.0), "members": 1},
        "ensemble": {"test": ensemble, "tests": tests, "scale": min(fits, 1.0), "members": count, "all_spent": spent},
    }


def machine() -> str:
    """The processor, its cores, and the versions that numbers depend on."""
    import lightning
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, lightning {lightning.__version__}"


def numbers(text: str) -> list[int]:
    """Read ``0-3`` or ``5``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))
