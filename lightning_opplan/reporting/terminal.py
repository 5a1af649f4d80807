"""Searches and trainings in the terminal: live where there is one, a line per edge where output goes to a file."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.promise import promise_of
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.arms import arm_table, choice_sentences
from lightning_opplan.reporting.stream import standard_console
from lightning_opplan.wording import duration

__all__ = ["FollowDisplay", "SearchDisplay", "edge_table", "path_table"]

_FRAME_LINES: Final = 8  # title, header, borders and a prompt
_RUNNING: Final = "…"


@dataclass
class _Running:
    started: float = field(default_factory=time.monotonic)
    progress: EdgeProgress | None = None


class SearchDisplay:
    """Show a search while it runs. A context manager; methods are called by the loop of the search.

    Args:
        search: The search; what it knows is looked up when it is shown.
        enabled: Whether to show anything.
        console: Where to. By default standard output.
        is_ranked: Whether edges compete, and the best are to be marked.
    """

    def __init__(
        self,
        search: Search | Halving,
        *,
        enabled: bool = True,
        console: Console | None = None,
        is_ranked: bool = True,
    ) -> None:
        self.search, self.enabled, self.is_ranked = search, enabled, is_ranked
        self.console = console or standard_console()
        self._live: Live | None = None
        self._running: dict[Edge, _Running] = {}

    def __enter__(self) -> Self:
        if self.enabled and self.console.is_terminal:
            # Made anew for every refresh: the time of the running edge goes on between its epochs.
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        elif self.search.known and isinstance(self.search, Halving):
            self.say(f"{len(self.search.known)} arms have been trained before.")
        elif self.search.outcomes:
            self.say(f"{len(self.search.outcomes)} of {len(self.search.edges)} edges have finished before.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, sentence: str) -> None:
        """Print a sentence above the table."""
        if self.enabled:
            self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def start(self, edge: Edge) -> None:
        """An edge begins, or goes on."""
        self._running[edge] = _Running()
        self._refresh()

    def progress(self, edge: Edge, progress: EdgeProgress | None) -> None:
        """An edge that runs elsewhere has come so far; shown with the next refresh."""
        if edge in self._running and progress is not None:
            self._running[edge].progress = progress

    def epoch(self, edge: Edge, progress: EdgeProgress) -> None:
        """An edge of this process has trained an epoch."""
        self.progress(edge, progress)
        self._refresh()

    def end(self, outcome: EdgeOutcome) -> None:
        """An edge has finished or has been paused."""
        self._running.pop(outcome.edge, None)
        if self._live is None:
            self.say(self._line(outcome))
        self._refresh()

    def finish(self, path: OptimizationPath | None) -> None:
        """The search is over: show all edges and the path, if they make one."""
        if self.enabled:
            self._running.clear()
            self.console.print(self._whole_table())
            if isinstance(self.search, Halving):
                for sentence in choice_sentences(self.search):
                    self.say(sentence)
            if path is not None:
                self.console.print(path_table(path))
                self.say(f"Promised at its end: {promise_of(self.search)}.")

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _table(self) -> Table:
        running = {edge: _running_cells(state) for edge, state in list(self._running.items())}
        return self._whole_table(running=running, max_rows=self.console.height - _FRAME_LINES)

    def _whole_table(self, **options: Any) -> Table:
        if isinstance(self.search, Halving):
            return arm_table(self.search, **options)
        return edge_table(self.search, is_ranked=self.is_ranked, **options)

    def _line(self, outcome: EdgeOutcome) -> str:
        state = "no value yet" if outcome.is_paused else "diverged"
        if outcome.value is not None:
            state = f"{outcome.value:.4f} at epoch {outcome.knee_epoch:g}" if self.is_ranked else "trained"
        if outcome.is_paused:
            state = f"paused, {state}"
        if isinstance(self.search, Halving):
            value = "diverged" if outcome.value is None else f"{outcome.value:.4f}"
            return (
                f"[rung {len(self.search.rungs)}] {outcome.edge.child}: {value} after {outcome.epochs_run:g} epochs "
                f"({duration(outcome.seconds)})"
            )
        return (
            f"[{len(self.search.outcomes)}/{len(self.search.edges)}] {outcome.edge}: {state} "
            f"of {outcome.epochs_run:g} ({duration(outcome.seconds)})"
        )


class FollowDisplay:
    """Show a training along a path while it runs. A context manager; methods are called by the training.

    Args:
        path: The path.
        enabled: Whether to show anything.
        console: Where to. By default standard output.
    """

    def __init__(self, path: OptimizationPath, *, enabled: bool = True, console: Console | None = None) -> None:
        self.path, self.enabled = path, enabled
        self.console = console or standard_console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:g} of {task.total:g} epochs"),
        )
        self._bar = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        self._task = self._bar.add_task("", total=path.total_epochs)
        self._before = 0.0
        self._step: PathStep | None = None

    def __enter__(self) -> Self:
        if self.enabled and self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def start(self, step: PathStep) -> None:
        """A state begins."""
        if self._step is not None:
            self._before += self._step.epochs
        self._step = step
        if self.enabled and not self.console.is_terminal:
            self.console.print(f"{step.state}: {step.epochs:g} epochs", highlight=False, markup=False)
        self._bar.update(self._task, description=escape(step.state), completed=self._before)

    def epoch(self, epoch: float) -> None:
        """An epoch of the state has ended."""
        self._bar.update(self._task, completed=self._before + epoch)


def edge_table(
    search: Search,
    *,
    running: Mapping[Edge, tuple[str, ...]] | None = None,
    max_rows: int | None = None,
    is_ranked: bool = True,
) -> Table:
    """Return a table with a row per edge: what has finished, what runs, what is paused and what is to come.

    Args:
        search: The search.
        running: Cells for value, knee, epochs and time of the edges that run.
        max_rows: Rows to show at most, those around the running edge.
        is_ranked: Whether the path and the best edges are marked.
    """
    running = running or {}
    outcomes, paused = search.outcomes, search.paused
    chosen = search.way(search.best_so_far) if search.best_so_far and search.is_complete else ()
    epochs = sum(outcome.epochs_run for outcome in search.known)
    time_spent = duration(sum(outcome.seconds for outcome in search.known))
    title = f"{len(outcomes)} of {len(search.edges)} edges done, {epochs:g} epochs, {time_spent}"
    waiting = len(paused.keys() - running.keys())
    further = [f"{number} {what}" for number, what in ((len(running), "running"), (waiting, "paused")) if number]
    table = Table(
        title="; ".join([title, *further]), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left",
        pad_edge=False,
    )  # fmt: skip
    for name in ("state", "from"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "knee", "epochs", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)

    rows = _window(search, running, max_rows)
    state = ""
    for edge in rows:
        names = Text(edge.child if edge.child != state else ""), Text(edge.parent)  # a name may look like markup
        state = edge.child
        if edge in running:
            table.add_row(*names, *running[edge], style="yellow")
        elif edge in outcomes:
            note, style = "", "dim"
            if not is_ranked:
                style = ""
            elif edge in chosen:
                note, style = "★ path", "bold green"
            elif search.winners.get(edge.child) == edge:
                note, style = "best", ""
            table.add_row(*names, *_cells(outcomes[edge], has_value=is_ranked), note, style=style)
        elif edge in paused:
            table.add_row(*names, *_cells(paused[edge]), "paused", style="cyan")
        else:
            table.add_row(*names, "", "", "", "", style="dim")
    if len(rows) < len(search.edges):
        table.caption = f"{len(search.edges) - len(rows)} more edges"
    return table


def path_table(path: OptimizationPath) -> Table:
    """Return a table with the states of a path, their epochs and settings."""
    table = Table(
        title=f"The path: {path.total_epochs:g} epochs",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("state")
    table.add_column("epochs", justify="right")
    table.add_column(path.monitor or "value", justify="right")
    table.add_column("setting")
    for step in path.steps:
        setting = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in step.setting.items())
        value = "" if step.value is None else f"{step.value:.4f}"
        table.add_row(Text(step.state), f"{step.epochs:g}", value, Text(setting))
    return table


def _cells(outcome: EdgeOutcome, *, has_value: bool = True) -> tuple[str, ...]:
    value = _RUNNING if outcome.is_paused else "diverged"
    if outcome.value is not None:
        value = f"{outcome.value:.4f}" if has_value else ""
    return value, f"{outcome.knee_epoch:g}", f"{outcome.epochs_run:g}", duration(outcome.seconds)


def _running_cells(state: _Running) -> tuple[str, ...]:
    time_so_far = duration(time.monotonic() - state.started)
    if state.progress is None:
        return _RUNNING, _RUNNING, "0", time_so_far, "running"
    progress = state.progress
    return (
        _RUNNING if progress.value is None else f"{progress.value:.4f}",
        _RUNNING if progress.knee is None else f"{progress.knee:g}?",
        f"{progress.epoch:g}",
        time_so_far,
        "running",
    )


def _window(search: Search, running: Mapping[Edge, tuple[str, ...]], max_rows: int | None) -> tuple[Edge, ...]:
    """The rows that fit: the running edges, more of what was before them than of what is to come."""
    edges, outcomes = search.edges, search.outcomes
    if max_rows is None or len(edges) <= max(max_rows, 1):
        return edges
    rows = max(max_rows, 1)
    active = [index for index, edge in enumerate(edges) if edge in running]
    current = active[0] if active else len(outcomes)
    # Edges that run far apart, in two branches, are brought together by leaving out what has finished.
    if active and active[-1] - active[0] >= rows:
        shown = sorted(edges, key=lambda edge: (edge not in running, edge in outcomes))[:rows]
        return tuple(edge for edge in edges if edge in shown)
    last = active[-1] if active else current
    first = min(max(current - rows * 2 // 3, last - rows + 1, 0), len(edges) - rows)
    return edges[first : first + rows]
