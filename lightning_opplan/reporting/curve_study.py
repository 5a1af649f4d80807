"""How well the families of Table 1 fit curves, and what the knee would have saved on them.

References:
    Qiu et al., "Optimization Planning for 3D ConvNets", ICML 2021, Table 1 and Figure 2a.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import get_args

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from lightning_opplan.planning.curves import CurveFit, Family, fit_curve, num_parameters
from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.reporting.curve_files import Curve
from lightning_opplan.reporting.figures import OTHER, PATH, POINTS, STYLE, Picture

__all__ = ["CurveStudy", "curves_figure", "study_curve", "study_tables"]

FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, kw_only=True)
class CurveStudy:
    """What is to be known of a curve.

    Attributes:
        curve: The curve.
        fits: The fit of every family that has no more parameters than the curve has values, to the curve scaled to
            [0, 1] with 1 the best.
        knee: The epoch that the rule takes, from all that it would have seen.
        stop: The epoch at which it would have stopped; ``None`` if it would not.
        loss: How much worse the value at the knee is than the best of the curve, as a share of its range.
    """

    curve: Curve
    fits: dict[Family, CurveFit] = field(default_factory=dict)
    knee: float | None
    stop: float | None
    loss: float | None

    @property
    def length(self) -> float:
        """Its last epoch."""
        return self.curve.points[-1][0]

    @property
    def saved(self) -> float:
        """Epochs that were not to be trained."""
        return 0.0 if self.stop is None else self.length - self.stop


def study_curve(curve: Curve, rule: KneeRule) -> CurveStudy | None:
    """Fit all families to a curve, and follow the rule along it.

    Args:
        curve: The curve.
        rule: When to stop.

    Returns:
        What came out; ``None`` for a constant curve, or one of fewer than two values.
    """
    finite = [(epoch, value) for epoch, value in curve.points if value is not None]
    values = np.array([value for _, value in finite]) * (1 if curve.mode == "max" else -1)
    if len(values) < 2 or not np.ptp(values) > 0:
        return None
    epochs, scaled = [epoch for epoch, _ in finite], (values - values.min()) / np.ptp(values)
    fits = {
        family: fit_curve(scaled, family, epochs=epochs)
        for family in FAMILIES
        if len(scaled) >= num_parameters(family)
    }
    seen, stop = curve.points, None
    for count in range(rule.min_points, len(curve.points) + 1):
        if rule.decide(curve.points[:count], curve.mode).stop:
            seen, stop = curve.points[:count], curve.points[count - 1][0]
            break
    knee = rule.decide(seen, curve.mode).knee_epoch
    by_epoch = dict(zip(epochs, scaled.tolist(), strict=True))
    return CurveStudy(
        curve=curve, fits=fits, knee=knee, stop=stop, loss=None if knee is None else 1 - by_epoch.get(knee, np.nan)
    )


def study_tables(studies: Sequence[CurveStudy], *, rule: KneeRule, each: bool = False) -> list[Table]:
    """Return the families' mean errors, what the rule would have saved, and perhaps a row for every curve.

    Args:
        studies: Of the curves.
        rule: When it stops.
        each: Whether to have a row for every curve.
    """
    families = Table(
        "family", title=f"{len(studies)} curves, scaled to [0, 1]", box=box.SIMPLE_HEAD, title_justify="left"
    )
    for column in ("curves", "mean RMSE", "mean R²"):
        families.add_column(column, justify="right")
    for family in FAMILIES:
        fits = [study.fits[family] for study in studies if family in study.fits]
        if fits:
            cells = (f"{fmean(fit.rmse for fit in fits):.4f}", f"{fmean(fit.r_squared for fit in fits):.3f}")
            families.add_row(family, str(len(fits)), *cells)
    stopped = [study for study in studies if study.stop is not None]
    losses = [study.loss for study in studies if study.loss is not None and np.isfinite(study.loss)]
    trained = sum(study.length - study.saved for study in studies)
    knees = Table(title=f"Stopped {rule.patience:g} epochs after the knee", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("curves", "stopped", "epochs trained", "of", "mean loss, % of the range"):
        knees.add_column(column, justify="right")
    knees.add_row(
        str(len(studies)), str(len(stopped)), f"{trained:g}", f"{sum(study.length for study in studies):g}",
        f"{100 * fmean(losses):.1f}" if losses else "",
    )  # fmt: skip
    return [families, knees, *([_table_of_each(studies)] if each else [])]


def _table_of_each(studies: Sequence[CurveStudy]) -> Table:
    table = Table("curve", box=box.SIMPLE_HEAD)
    for column in ("epochs", *(f"{family}: RMSE, R²" for family in FAMILIES), "knee", "stop", "saved"):
        table.add_column(column, justify="right")
    for study in studies:
        errors = [study.fits.get(family) for family in FAMILIES]
        table.add_row(
            Text(study.curve.name),
            f"{study.length:g}",
            *("" if fit is None else f"{fit.rmse:.4f}, {fit.r_squared:.3f}" for fit in errors),
            "" if study.knee is None else f"{study.knee:g}",
            "" if study.stop is None else f"{study.stop:g}",
            f"{study.saved:g}",
        )
    return table


def curves_figure(studies: Sequence[CurveStudy], *, family: Family = "exponential") -> Figure:
    """Draw all curves, scaled to [0, 1], the fit of one family, and their knees (Figure 2a)."""
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        faint = max(0.06, min(0.9, 6 / max(len(studies), 1)))
        for study in studies:
            fit = study.fits.get(family)
            points = _scaled(study.curve)
            axes.plot(*zip(*points, strict=True), color=POINTS, linewidth=0.8, alpha=faint)
            if fit is not None and len(studies) <= 10:
                fine = np.linspace(points[0][0], points[-1][0], 200)
                axes.plot(fine, fit.predict(fine), color=OTHER, linewidth=1.3)
            knee = study.knee
            if knee is not None and knee in dict(points):
                axes.plot([knee], [dict(points)[knee]], "o", color=PATH, markersize=3.5, alpha=max(faint, 0.3), mew=0)
        lengths = sorted(study.length for study in studies)
        if lengths[-1] > 6 * lengths[len(lengths) // 2]:  # a few long ones would press the others together
            has_start = any(study.curve.points[0][0] < 1 for study in studies)
            axes.set_xscale("symlog" if has_start else "log")
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation, from its worst (0) to its best (1)")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _scaled(curve: Curve) -> list[tuple[float, float]]:
    finite = [(epoch, value if curve.mode == "max" else -value) for epoch, value in curve.points if value is not None]
    low, high = min(value for _, value in finite), max(value for _, value in finite)
    return [(epoch, (value - low) / (high - low)) for epoch, value in finite]
