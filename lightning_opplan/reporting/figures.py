"""What all figures share, and that of a validation curve."""

import io
import warnings
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.curves import fit_of
from lightning_opplan.planning.outcome import EdgeOutcome

__all__ = [
    "FAINT",
    "FORMATS",
    "INK",
    "OTHER",
    "PATH",
    "POINTS",
    "STYLE",
    "Picture",
    "curve_figure",
    "draw_curve",
    "save_figure",
    "svg_of",
]

FORMATS: Final = ("svg", "png", "pdf")
"""What figures can be had as."""

PATH, OTHER, FAINT, INK, POINTS = "#c0392b", "#5d6d7e", "#c8d0d8", "#1c2833", "#2471a3"
STYLE: Final[Any] = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "opplan",
    "text.parse_math": False,  # a state may be called anything
    "font.family": "sans-serif",
}


class Picture(Figure):
    """A figure that a notebook shows, also one that has not imported pyplot."""

    def _repr_png_(self) -> bytes:  # what IPython asks for
        stream = io.BytesIO()
        _save(self, stream, "png", dpi=100)
        return stream.getvalue()


def curve_figure(outcome: EdgeOutcome, *, monitor: str, mode: Any, family: Any, is_chosen: bool) -> Figure:
    """Draw an edge's validation values, the fitted curve and the knee.

    Args:
        outcome: The finished edge.
        monitor: Name of the metric.
        mode: Whether a higher or a lower value is better.
        family: Family of the curve; ``None`` to draw none.
        is_chosen: Whether the edge is on the path.

    Returns:
        The figure.
    """
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(3.6, 2.3), layout="constrained")
        draw_curve(figure.add_subplot(), outcome, monitor=monitor, mode=mode, family=family, is_chosen=is_chosen)
    return figure


def draw_curve(axes: Axes, outcome: EdgeOutcome, *, monitor: str, mode: Any, family: Any, is_chosen: bool) -> None:
    """Draw the same into given axes."""
    points = [(epoch, value) for epoch, value in outcome.curve if value is not None]
    axes.plot(*zip(*points, strict=True) if points else ([], []), ".", color=POINTS, markersize=5)
    fit = None if family is None else fit_of(points, family, mode)
    if fit is not None:
        fine = np.linspace(points[0][0], points[-1][0], 200)
        axes.plot(fine, fit.predict(fine), color=OTHER, linewidth=1.4)
    if outcome.value is not None:
        colour = PATH if is_chosen else OTHER
        axes.axvline(outcome.knee_epoch, color=colour, linewidth=0.9, linestyle="--")
        axes.plot([outcome.knee_epoch], [outcome.value], "o", color=colour, markersize=7, fillstyle="none", mew=1.6)
    for missing in (epoch for epoch, value in outcome.curve if value is None):
        axes.axvline(missing, color=PATH, linewidth=0.9, alpha=0.4)
    axes.set_xlabel("epoch")
    axes.set_ylabel(monitor)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.03)


def svg_of(figure: Figure) -> str:
    """Return a figure as an SVG element."""
    stream = io.StringIO()
    _save(figure, stream, "svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save_figure(figure: Figure, file: Path) -> Path:
    """Write a figure, in the format that the name of its file ends in.

    Args:
        figure: The figure.
        file: The file; its folder is made, too.

    Raises:
        ValueError: If there is no such format.
    """
    checked_choice("format", file.suffix.removeprefix("."), FORMATS)
    file.parent.mkdir(parents=True, exist_ok=True)
    _save(figure, str(file), file.suffix.removeprefix("."))
    return file


def _save(figure: Figure, target: Any, kind: str, *, dpi: float = 200) -> None:
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser that shows it may have the letter
        figure.savefig(target, format=kind, metadata=dates.get(kind), dpi=dpi)
