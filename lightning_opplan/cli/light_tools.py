"""The subcommands that only read results; they start without torch and Lightning, whose import takes seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from jsonargparse import ArgumentParser, Namespace
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from lightning_opplan.cli.folder_tools import EXPORT, REPORT, WATCH
from lightning_opplan.cli.tool import Tool, add_list, flat
from lightning_opplan.files import file_name
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.reporting import say, standard_console
from lightning_opplan.reporting.curve_files import read_curves
from lightning_opplan.reporting.curve_study import CurveStudy, curves_figure, study_curve, study_tables
from lightning_opplan.reporting.figures import curve_figure, save_figure
from lightning_opplan.scores import Scores, best_weights, fused

__all__ = ["LIGHT_TOOLS"]


def _add_curves(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=str, help="CSV, JSON lines, journals, or logs of TensorBoard.")
    parser.add_argument("--metric", type=str | None, help="Column or tag; by default those of validation.")
    parser.add_argument(
        "--mode", type=Literal["max", "min"] | None, help="Whether higher or lower is better; by default by the name."
    )
    parser.add_argument("--patience", type=float, default=10, help="Epochs after the knee at which training stops.")
    parser.add_argument("--rule", type=Literal["paper", "smoothed"], default="paper", help="As of `KneeStopping`.")
    parser.add_argument("--each", action="store_true", help="Show a row for every curve.")
    parser.add_argument("--out", type=str | None, help="Picture of all curves: .svg, .png or .pdf.")
    parser.add_argument("--figures", type=str | None, help="Folder for a picture of every curve.")
    parser.add_argument("--format", type=Literal["svg", "png", "pdf"], default="svg", help="Format of these.")


def _curves(values: Namespace) -> None:
    rule = KneeRule(patience=values.patience, rule=values.rule)
    curves = read_curves(values.files, metric=values.metric, mode=values.mode)
    studies = [study for study in (study_curve(curve, rule) for curve in curves) if study is not None]
    if not studies:
        raise ValueError(f"`files` must have a curve that changes, got {len(curves)} that do not.")
    if len(studies) < len(curves):
        say(f"{len(curves) - len(studies)} curves do not change and are left out.")
    for table in study_tables(studies, rule=rule, each=values.each):
        standard_console().print(table)
    if values.out is not None:
        say(f"Picture: {save_figure(curves_figure(studies), Path(values.out))}")
    if values.figures is not None:
        for number, study in enumerate(studies, start=1):
            name = f"{number:04d}_{file_name(study.curve.name)}.{values.format}"
            save_figure(_picture(study), Path(values.figures, name))
        say(f"Pictures of each: {values.figures}")


def _picture(study: CurveStudy) -> Figure:
    curve, by_epoch = study.curve, dict(study.curve.points)
    outcome = EdgeOutcome(
        edge=Edge("start", curve.name),
        value=None if study.knee is None else by_epoch.get(study.knee),
        knee_epoch=study.knee or 0,
        epochs_run=study.length,
        curve=curve.points,
    )
    return curve_figure(outcome, monitor=curve.name, mode=curve.mode, family="exponential", is_chosen=True)


def _add_fuse(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=str, help="Files that `opplan predict --scores` has written.")
    add_list(parser, "--weights", float, help="Weight of each, after the files; by default equal.")
    add_list(
        parser,
        "--validation",
        str,
        help="Validation scores of the same networks, after the files, to choose weights on.",
    )
    parser.add_argument("--out", type=str | None, help="File for the fusion (.npz).")


def _fuse(values: Namespace) -> None:
    members = [Scores.load(file) for file in values.files]
    weights: Sequence[float] | None = flat(values.weights)
    validation = flat(values.validation)
    if validation is not None:
        if weights is not None:
            raise ValueError("`weights` must be left out where they are chosen on `validation`, got both.")
        if len(validation) != len(members):
            raise ValueError(f"`validation` must have a file for each of {len(members)}, got {validation!r}.")
        weights = best_weights([Scores.load(file) for file in validation])
    fusion = fused(members, weights)
    table = Table("scores", title=f"{len(fusion.ids)} videos", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("weight", "top-1", "top-5"):
        table.add_column(column, justify="right")
    given = [1 / len(members)] * len(members) if weights is None else [each / sum(weights) for each in weights]
    rows = [*zip(values.files, given, members, strict=True), ("fused", None, fusion)]
    for name, weight, scores in rows:
        accuracies = (scores.accuracy(k) for k in (1, 5))
        cells = ("no labels" if accuracy is None else f"{accuracy:.4f}" for accuracy in accuracies)
        table.add_row(name, "" if weight is None else f"{weight:.3g}", *cells)
    standard_console().print(table)
    if values.out is not None:
        say(f"Scores:  {fusion.save(values.out)}")


LIGHT_TOOLS: Final[Mapping[str, Tool]] = {
    "report": REPORT,
    "watch": WATCH,
    "export": EXPORT,
    "curves": Tool(
        "Fit the families of Table 1 to any validation curves, and say where the knee would have stopped.",
        _add_curves,
        _curves,
    ),
    "fuse": Tool(
        "Average the scores that `predict --scores` has written, of several networks, samplings or modalities.",
        _add_fuse,
        _fuse,
    ),
}
"""The subcommands by name."""
