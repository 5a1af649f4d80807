"""The subcommands that need neither a model nor data; here are those that need no search either."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from jsonargparse import ArgumentParser, Namespace
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from lightning_opplan.cli.completion import COMPLETION
from lightning_opplan.cli.folder_tools import EXPORT, REPORT, WATCH
from lightning_opplan.cli.result_tables import TABLE
from lightning_opplan.cli.tool import Program, Tool, add_list, flat
from lightning_opplan.files import file_name
from lightning_opplan.messages import suggestion
from lightning_opplan.models import list_models
from lightning_opplan.models.counting import network_cost
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.reporting import say, standard_console
from lightning_opplan.reporting.curve_files import read_curves
from lightning_opplan.reporting.curve_study import CurveStudy, curves_figure, study_curve, study_tables
from lightning_opplan.reporting.figures import curve_figure, save_figure
from lightning_opplan.scores import Scores, best_weights, fused

__all__ = ["TOOLS"]


def _add_networks(parser: ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="Shell pattern of the names.")
    parser.add_argument("--clip_length", type=int, default=16, help="Frames of a clip.")
    parser.add_argument("--crop_size", type=int, default=224, help="Height and width of a clip in px.")
    parser.add_argument("--num_classes", type=int, default=400, help="Classes.")
    parser.add_argument("--in_channels", type=int, default=3, help="Channels: 3 for RGB, 2 for optical flow.")
    parser.add_argument("--views", type=int, default=30, help="Views of a video in a test: clips times crops.")


def _networks(values: Namespace, _: Program) -> None:
    names = list_models(values.pattern)
    if not names:
        raise ValueError(
            f"`pattern` must match a network, got {values.pattern!r}. {suggestion(values.pattern, list_models())}"
        )
    clip = f"{values.clip_length} × {values.crop_size}²"
    table = Table("network", title=f"{values.num_classes} classes, clips of {clip}", box=box.SIMPLE_HEAD)
    for column in ("parameters", "GMACs", f"GMACs × {values.views} views"):
        table.add_column(column, justify="right")
    for name in names:
        cost = network_cost(
            name,
            num_classes=values.num_classes,
            clip_length=values.clip_length,
            crop_size=values.crop_size,
            in_channels=values.in_channels,
        )
        table.add_row(name, f"{cost.num_parameters:,}", f"{cost.gmacs:.2f}", f"{cost.gmacs * values.views:,.0f}")
    standard_console().print(table)


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


def _curves(values: Namespace, _: Program) -> None:
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
    add_list(parser, "--weights", float, help="Weight of each; by default equal.")
    add_list(parser, "--validation", str, help="Validation scores of the same networks, to choose weights on.")
    parser.add_argument("--out", type=str | None, help="File for the fusion (.npz).")


def _fuse(values: Namespace, _: Program) -> None:
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


TOOLS: Final = {
    "report": REPORT,
    "watch": WATCH,
    "export": EXPORT,
    "table": TABLE,
    "networks": Tool(_add_networks, _networks),
    "curves": Tool(_add_curves, _curves),
    "fuse": Tool(_add_fuse, _fuse),
    "completion": COMPLETION,
}
"""The subcommands by name."""
