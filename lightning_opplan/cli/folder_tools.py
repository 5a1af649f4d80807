"""Subcommands that read the folder of a search: `report`, `watch` and `export`."""

from pathlib import Path
from typing import Final, Literal

from jsonargparse import ArgumentParser, Namespace

from lightning_opplan.cli.tool import Tool
from lightning_opplan.files import file_name, local_folder
from lightning_opplan.planning.journal import Journal
from lightning_opplan.reporting import (
    comparison_of,
    comparison_tables,
    found_paths,
    paths_table,
    say,
    standard_console,
    tested_of,
    tested_table,
    verdict,
    watch,
    write_figures,
    write_optuna,
    write_paths,
    write_report,
    write_tables,
)

__all__ = ["EXPORT", "REPORT", "WATCH", "show_tests"]


def show_tests(folder: Path) -> None:
    """Print what was tested of a plan, and which was ahead, if anything was."""
    plan, _ = Journal.of(folder).read()
    rows = tested_of(folder) if plan.kind == "plan" else ()
    if any(row.value is not None for row in rows):
        standard_console().print(tested_table(rows))
        sentence = verdict(rows, plan.mode)
        if sentence is not None:
            say(sentence)


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("dirpath", nargs="+", type=str, help="Folder of the search, or of several.")
    parser.add_argument("--figures", type=str | None, help="Folder for every figure as a file of its own.")
    parser.add_argument("--format", type=Literal["svg", "png", "pdf"], default="svg", help="Format of these.")
    parser.add_argument(
        "--out", type=str, default="paths.html", help="Of several searches: page, or figure, of their paths."
    )


def _report(values: Namespace) -> None:
    folders = [Path(folder) for folder in values.dirpath]
    for folder in folders:
        file = write_report(folder)
        if len(folders) == 1:
            standard_console().print(comparison_tables(comparison_of(folder)))
            show_tests(folder)
        say(f"Report:  {file}")
        if values.figures is not None:
            parts = [] if len(folders) == 1 else [file_name(str(folder))]
            target = Path(values.figures, *parts)
            number = len(write_figures(folder, target, values.format))
            say(f"Figures: {number} in {target}")
    if len(folders) > 1:
        found = found_paths(folders)
        standard_console().print(paths_table(found))
        say(f"Paths:   {write_paths(found, values.out)}")


def _add_watch(parser: ArgumentParser) -> None:
    parser.add_argument("dirpath", type=str, help="Folder of the search, wherever that runs.")
    parser.add_argument("--port", type=int, default=0, help="Port to listen at; by default one that is free.")


def _watch(values: Namespace) -> None:
    watch(local_folder(values.dirpath), port=values.port, say=say)


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("dirpath", type=str, help="Folder of the search.")
    parser.add_argument(
        "--format",
        type=Literal["csv", "json", "parquet", "optuna"],
        default="csv",
        help="Tables of edges, states and curves, or a study of Optuna.",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        help="Folder of the files, or file or URL of the study; by default `export` in dirpath.",
    )


def _export(values: Namespace) -> None:
    dirpath = local_folder(values.dirpath)
    if values.format == "optuna":
        target = dirpath / "export" / "optuna.log" if values.out is None else values.out
        study = write_optuna(dirpath, target)
        say(f"Study:   {study.study_name}, {len(study.trials)} trials, in {target}")
        return
    for file in write_tables(dirpath, values.out or dirpath / "export", values.format):
        say(f"Table:   {file}")


REPORT: Final = Tool(
    "Make the report of a search anew from its journal; of several, their paths side by side.",
    _add_report,
    _report,
)
WATCH: Final = Tool(
    "Serve the report of a search to a browser on this machine, renewed as its epochs end; Ctrl-C ends it.",
    _add_watch,
    _watch,
)
EXPORT: Final = Tool(
    "Write the edges, states and curves of a search as tables, or as a study of Optuna.",
    _add_export,
    _export,
)
