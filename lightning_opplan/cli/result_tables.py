"""Strategies over networks, splits or data sets in one table: what `opplan table` does.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Tables 4 (networks), 5 (data sets) and 6 (splits).
"""

import csv
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

from jsonargparse import ArgumentParser, Namespace
from rich import box
from rich.table import Table

from lightning_opplan.cli.recipe import ConfigRecipe
from lightning_opplan.cli.tool import Program, ProgramTool, add_list, flat
from lightning_opplan.files import file_name, local_folder, write_json, write_text
from lightning_opplan.messages import checked_choice, suggestion
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.reporting import say, standard_console
from lightning_opplan.reporting.comparison import spent
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.reporting.templates import template
from lightning_opplan.tuner.edges.checkpoints import load_weights
from lightning_opplan.tuner.edges.hush import hushed

__all__ = ["STRATEGIES", "TABLE", "Cell", "ResultTable", "tested_weights"]

_KINDS: Final[Mapping[str, str]] = {"networks": "--model.init_args.network", "splits": "--data.init_args.split"}
"""What an entry of the table is given as; one of ``"datasets"`` is a configuration file of its own."""

Main = Callable[[list[str]], Any]
"""Runs a command line, and returns the `OpplanCLI`."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A strategy for an entry of the table, with a seed.

    Attributes:
        entry: The network, split or configuration.
        strategy: A key of `STRATEGIES`.
        seed: The seed.
        metrics: What the test measured.
        epochs: Epochs that were trained for it.
        device_hours: Hours times devices.
    """

    entry: str
    strategy: str
    seed: int
    metrics: Mapping[str, float]
    epochs: float
    device_hours: float


class ResultTable:
    """Fills a table, and goes on where it was.

    Args:
        kind: What the entries are.
        entries: Networks, splits, or configuration files.
        strategies: Keys of `STRATEGIES`.
        seeds: Seeds of each.
        dirpath: Folder of everything.
        words: Arguments of all commands.
        main: Runs a command line.

    Attributes:
        cells: Those that are there.

    Raises:
        ValueError: If there is no such kind or strategy, or the folder has results of other arguments.
    """

    def __init__(
        self,
        kind: str,
        entries: Sequence[str | int],
        *,
        strategies: Sequence[str],
        seeds: Sequence[int],
        dirpath: str | os.PathLike[str],
        words: Sequence[str],
        main: Main,
    ) -> None:
        checked_choice("kind", kind, (*_KINDS, "datasets"))
        for strategy in strategies:
            checked_choice("strategies", strategy, STRATEGIES)
        if not entries:
            raise ValueError(f"`over` must name the {kind} of the table, got none.")
        folders = [file_name(_title(str(entry))) for entry in entries]
        twice = next((name for name in folders if folders.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"`over` must name {kind} of different names, got {twice!r} twice.")
        self.kind, self.entries, self.strategies, self.seeds = (
            kind,
            list(map(str, entries)),
            list(strategies),
            list(seeds),
        )
        self.folder, self.words, self.main = Path(dirpath), list(words), main
        self.cells: list[Cell] = []

    def fill(self, progress: Callable[[str], object] = print) -> None:
        """Do what is missing."""
        wanted = [
            (entry, seed, strategy) for entry in self.entries for seed in self.seeds for strategy in self.strategies
        ]
        for number, (entry, seed, strategy) in enumerate(wanted, start=1):
            file = self._folder(entry, seed) / f"{strategy}.json"
            said = self._words(entry, seed)
            words = [*said, "--plan.dirpath", str(self._folder(entry, seed))]
            if not file.is_file():
                progress(f"[{number}/{len(wanted)}] {entry}, seed {seed}: {strategy}")
                metrics, cost = STRATEGIES[strategy](self.main, words, self._folder(entry, seed))
                finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
                write_json(file, {"words": said, "metrics": finite, "epochs": cost[0], "device_hours": cost[1]})
            known = json.loads(file.read_text(encoding="utf-8"))
            given = known.pop("words")
            if given[-2:-1] == ["--plan.dirpath"]:  # of an earlier version
                given = given[:-2]
            if given != said:
                raise ValueError(
                    f"`dirpath` must be a new folder for other arguments, got {str(self.folder)!r}. Choose another "
                    "one, or delete this one."
                )
            measured = {name: math.nan if value is None else value for name, value in known.pop("metrics").items()}
            self.cells.append(Cell(entry=entry, strategy=strategy, seed=seed, metrics=measured, **known))

    def searches(self) -> Iterator[Path]:
        """Yield the folders of all searches."""
        for entry in self.entries:
            for seed in self.seeds:
                if Journal.of(self._folder(entry, seed)).file.is_file():
                    yield self._folder(entry, seed)

    def rows(self, metric: str) -> list[tuple[str, list[list[float]]]]:
        """Return name and values over seeds, by strategy, of every entry; and of their mean, seed by seed.

        Raises:
            ValueError: If the test did not measure the metric.
        """
        for cell in self.cells:
            if metric not in cell.metrics:
                raise ValueError(
                    f"`metric` must be one that every test measures, got {metric!r}, which that of {cell.entry} by "
                    f"{cell.strategy} does not. {suggestion(metric, cell.metrics)}"
                )
        values = {(cell.entry, cell.strategy, cell.seed): cell.metrics[metric] for cell in self.cells}
        rows = [
            (_title(entry), [[values[entry, strategy, seed] for seed in self.seeds] for strategy in self.strategies])
            for entry in self.entries
        ]
        if len(self.entries) > 1:
            means = [
                [statistics.fmean(values[entry, strategy, seed] for entry in self.entries) for seed in self.seeds]
                if len(self.seeds) > 1
                else [values[entry, strategy, self.seeds[0]] for entry in self.entries]
                for strategy in self.strategies
            ]
            rows.append(("mean", means))
        return rows

    def costs(self) -> list[tuple[str, str, float, float]]:
        """Return what every strategy took for every entry, on average over seeds: epochs, and hours times devices."""
        found = []
        for entry in self.entries:
            for strategy in self.strategies:
                cells = [cell for cell in self.cells if (cell.entry, cell.strategy) == (entry, strategy)]
                epochs, hours = (
                    statistics.fmean(getattr(cell, name) for cell in cells) for name in ("epochs", "device_hours")
                )
                found.append((_title(entry), strategy, epochs, hours))
        return found

    def table(self, metric: str) -> Table:
        """Return the table for the terminal."""
        table = Table(title=f"{metric}; {_spread(self)}", title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column(self.kind.removesuffix("s"), no_wrap=True)
        for strategy in self.strategies:
            table.add_column(strategy.replace("_", " "), justify="right")
        for name, values in self.rows(metric):
            table.add_row(name, *map(written, values), style="bold" if name == "mean" else None)
        return table

    def write(self, metric: str) -> list[Path]:
        """Write the table as ``table.csv`` and, with links to the reports, as ``table.html``."""
        stream = StringIO()
        names = list(dict.fromkeys(name for cell in self.cells for name in cell.metrics))
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([self.kind, "strategy", "seed", *names, "epochs", "device_hours"])
        for cell in self.cells:
            values = [cell.metrics.get(name, "") for name in names]
            writer.writerow([_title(cell.entry), cell.strategy, cell.seed, *values, cell.epochs, cell.device_hours])
        write_text(self.folder / "table.csv", stream.getvalue())
        page = template("table").render(
            kind=self.kind.removesuffix("s"),
            hours_of=hours_of,
            metric=metric,
            spread=_spread(self),
            strategies=self.strategies,
            rows=[(name, list(map(written, values))) for name, values in self.rows(metric)],
            costs=self.costs(),
            reports=[(each.relative_to(self.folder).as_posix()) for each in self.searches()],
        )
        write_text(self.folder / "table.html", page)
        return [self.folder / "table.csv", self.folder / "table.html"]

    def _folder(self, entry: str, seed: int) -> Path:
        return self.folder / file_name(_title(entry)) / f"seed-{seed}"

    def _words(self, entry: str, seed: int) -> list[str]:
        own = ["--config", entry] if self.kind == "datasets" else [_KINDS[self.kind], entry]
        words = [*own, *self.words] if self.kind == "datasets" else [*self.words, *own]
        return [*words, "--seed_everything", str(seed)]


def written(values: Sequence[float]) -> str:
    """Write a mean with its standard error, if there is one."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}"


def tested_weights(cli: Any) -> dict[str, float]:
    """Test the weights that a search ends with, under the last state's setting; returns what was measured."""
    weights, setting = cli.result.weights, cli.result.path.steps[-1].setting
    with hushed():
        experiment = ConfigRecipe(cli).build(setting, callbacks=[], folder=str(weights.parent))
        load_weights(experiment.model, str(weights))
        (metrics,) = experiment.trainer.test(experiment.model, experiment.data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


Measured = tuple[Mapping[str, float], tuple[float, float]]
"""What the test measured, and epochs and device hours."""


def _plan(main: Main, words: list[str], folder: Path) -> Measured:
    return tested_weights(main(["plan", *words])), _cost(folder)


def _follow(main: Main, words: list[str], folder: Path) -> Measured:
    main(["plan", *words])
    main(["follow", *words, "--path", str(folder / "path.yaml")])
    cli = main(
        ["test", "--config", str(folder / "follow" / "config.yaml"),
         "--ckpt_path", str(folder / "follow" / "weights.ckpt")]
    )  # fmt: skip
    epochs, hours = _cost(folder)
    followed = OptimizationPath.load(folder / "path.yaml").total_epochs
    # Nobody has taken the time of these epochs: they are taken to last as long as those of the search.
    hours *= 1 + followed / epochs
    return {name: float(value) for name, value in cli.trainer.callback_metrics.items()}, (epochs + followed, hours)


def _ensemble(name: str, main: Main, words: list[str], folder: Path) -> Measured:
    main(["plan", *words])
    main([name, *words])
    cli = main(["test", *words, "--ensemble", str(folder / name / "ensemble.yaml")])
    epochs, hours = _cost(folder / name)
    searched = _cost(folder) if name == "deliver" else (0.0, 0.0)
    scores: Mapping[str, Mapping[str, float]] = cli.scores
    return scores["ensemble"], (epochs + searched[0], hours + searched[1])


def _grid(decay: str, main: Main, words: list[str], folder: Path) -> Measured:
    place = folder / decay
    cli = main(["grid", *words, "--plan.dirpath", str(place), "--plan.grid.decays", json.dumps([decay])])
    return tested_weights(cli), _cost(place / "grid")


def _cost(folder: Path) -> tuple[float, float]:
    taken = spent(Journal.of(folder).read()[1])
    return taken.epochs, taken.device_hours


STRATEGIES: Final[Mapping[str, Callable[[Main, list[str], Path], Measured]]] = {
    "plan": _plan,
    "follow": _follow,
    "deliver": partial(_ensemble, "deliver"),
    "control": partial(_ensemble, "control"),
    "step": partial(_grid, "step"),
    "cosine": partial(_grid, "cosine"),
    "warmup_cosine": partial(_grid, "warmup_cosine"),
    "multigrid": partial(_grid, "multigrid"),
}
"""What fills a column: the weights that a search ends with, its path on all data, the ensemble of its delivery, the
control of the same cost, and the best training of the hand-tuned grid, by how its learning rate goes."""


def _title(entry: str) -> str:
    return Path(entry).stem if entry.endswith((".yaml", ".yml")) else entry


def _spread(table: ResultTable) -> str:
    if len(table.seeds) > 1:
        return f"mean ± standard error over {len(table.seeds)} seeds"
    return "one seed; mean ± standard error over the rows" if len(table.entries) > 1 else "one seed"


def _add_table(parser: ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        type=Literal["networks", "splits", "datasets"],
        help="What the rows of the table are. What follows -- goes to every command: --config and all.",
    )
    add_list(parser, "--over", str | int, required=True, help="Networks, splits, or configurations.")
    add_list(parser, "--strategies", str, default=["plan", "cosine"], help=f"Columns, of {', '.join(STRATEGIES)}.")
    add_list(parser, "--seeds", int, default=[0], help="Seeds of each.")
    parser.add_argument("--dirpath", type=str, default="runs/table", help="Folder of everything.")
    parser.add_argument("--metric", type=str, default="test/top1", help="What of the test the table shows.")


def _table(values: Namespace, program: Program) -> None:
    table = ResultTable(
        values.kind,
        flat(values.over) or [],
        strategies=flat(values.strategies) or [],
        seeds=flat(values.seeds) or [],
        dirpath=local_folder(values.dirpath),
        words=program.further,
        main=program.main,
    )
    table.fill(say)
    standard_console().print(table.table(values.metric))
    for file in table.write(values.metric):
        say(f"Table:   {file}")


TABLE: Final = ProgramTool(
    "Plan, and train by hand, over networks, splits or data sets, and join the results; started again, go on.",
    _add_table,
    _table,
)
