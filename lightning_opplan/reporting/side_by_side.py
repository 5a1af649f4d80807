"""Several searches beside each other, and the figures of a search as files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from lightning_opplan.files import file_name, write_text
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.reporting.arms import arms_figure
from lightning_opplan.reporting.comparison import Spent, spent
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.reporting.figures import curve_figure, save_figure, svg_of
from lightning_opplan.reporting.graph_figures import graph_figure, paths_figure, procedure_figure
from lightning_opplan.reporting.templates import template

__all__ = ["FoundPath", "found_paths", "paths_table", "write_figures", "write_paths"]

Format = Literal["svg", "png", "pdf"]


@dataclass(frozen=True, kw_only=True)
class FoundPath:
    """What a search has found.

    Attributes:
        name: What tells it from the others: the part of its folder that differs.
        folder: Its folder.
        path: The best path so far.
        spent: What the search took.
    """

    name: str
    folder: Path
    path: OptimizationPath
    spent: Spent


def found_paths(folders: Sequence[str | os.PathLike[str]]) -> tuple[FoundPath, ...]:
    """Read what searches have found.

    Args:
        folders: Folders of searches.

    Raises:
        FileNotFoundError: If there is no journal in a folder.
        ValueError: If a search has no path yet.
    """
    resolved = [Path(folder).resolve() for folder in folders]
    found = []
    for folder, name in zip(resolved, _names(resolved), strict=True):
        plan, search = Journal.of(folder).read()
        path = search.path(monitor=plan.monitor)
        if path is None:
            raise ValueError(f"`dirpath` must be of a search that has found something, got {str(folder)!r}.")
        found.append(FoundPath(name=name, folder=folder, path=path, spent=spent(search)))
    return tuple(found)


def paths_table(found: Sequence[FoundPath]) -> Table:
    """Return what searches have found as a table for the terminal."""
    table = Table("search", "path", title="Paths", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in ("epochs", "value", "epochs of the search", "device time"):
        table.add_column(column, justify="right")
    for each in found:
        value = "" if each.path.value is None else f"{each.path.value:.4f}"
        cost = f"{each.spent.epochs:g}", hours_of(each.spent.device_hours)
        table.add_row(Text(each.name), Text(_line(each.path)), f"{each.path.total_epochs:g}", value, *cost)
    return table


def write_paths(found: Sequence[FoundPath], file: str | os.PathLike[str]) -> Path:
    """Write a page with the paths of several searches side by side, as Figure 5 of the paper.

    Args:
        found: What they have found.
        file: The page (.html), or the figure alone (.svg, .png, .pdf).
    """
    file = Path(file)
    figure = paths_figure({each.name: each.path for each in found})
    if file.suffix != ".html":
        return save_figure(figure, file)
    here = file.resolve().parent
    rows = [
        {
            "name": each.name, "path": _line(each.path), "epochs": each.path.total_epochs, "value": each.path.value,
            "monitor": each.path.monitor or "", "spent": each.spent,
            "report": Path(os.path.relpath(each.folder, here), "report.html").as_posix(),
        }
        for each in found
    ]  # fmt: skip
    page = template("paths")
    write_text(file, page.render(svg=Markup(svg_of(figure)), rows=rows, hours_of=hours_of))
    return file


def write_figures(dirpath: str | os.PathLike[str], folder: str | os.PathLike[str], kind: Format = "svg") -> list[Path]:
    """Write every figure of a search as a file.

    Args:
        dirpath: The folder of the search.
        folder: Where they go: the graph, the procedure in four panels and the path; or the arms of a search with a
            budget; and the curve of every edge.
        kind: Format.

    Returns:
        The files.
    """
    plan, search = Journal.of(Path(dirpath)).read()
    path = search.path(monitor=plan.monitor)
    chosen = () if path is None else search.way(path.steps[-1].state)
    if isinstance(search, Halving):
        figures = {"arms": arms_figure(search, monitor=plan.monitor)}
    else:
        figures = {
            "graph": graph_figure(search, chosen=chosen),
            "procedure": procedure_figure(search, chosen=chosen),
        }
    if path is not None:
        figures["path"] = paths_figure({Path(dirpath).resolve().name: path})
    outcomes = {**search.paused, **search.outcomes}
    for number, (edge, outcome) in enumerate(sorted(outcomes.items()), start=1):
        figures[f"curve-{number:03d}_{file_name(str(edge))}"] = curve_figure(
            outcome,
            monitor=plan.monitor,
            mode=plan.mode,
            family=None if isinstance(search, Halving) else plan.options.rule.curve,
            is_chosen=edge in chosen,
        )
    return [save_figure(figure, Path(folder, f"{name}.{kind}")) for name, figure in figures.items()]


def _names(folders: Sequence[Path]) -> list[str]:
    """The parts of folders that differ: all but what they have in common in front."""
    if len(folders) == 1:
        return [folders[0].name]
    common = Path(os.path.commonpath([folder.parent for folder in folders]))
    return [folder.relative_to(common).as_posix() for folder in folders]


def _line(path: OptimizationPath) -> str:
    return " → ".join(f"{step.state} × {step.epochs:g}" for step in path.steps if step.epochs > 0)
