"""The fitted curves of a search's edges, each fitted once however often the search is looked at."""

from lightning_opplan.planning.curves import CurveFit, Family, Mode, fit_curve, num_parameters
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.knee import Point

__all__ = ["Fits", "fit_of"]


def fit_of(points: tuple[Point, ...], family: Family, mode: Mode) -> CurveFit | None:
    """Return the curve through some validations; ``None`` where they are too few, or all the same."""
    finite = [(epoch, value) for epoch, value in points if value is not None]
    if len(finite) < num_parameters(family) or len({value for _, value in finite}) < 2:
        return None
    epochs, values = zip(*finite, strict=True)
    return fit_curve(values, family, mode=mode, epochs=epochs)


class Fits:
    """Fits by edge; one is made anew once the edge has further validations."""

    def __init__(self) -> None:
        self._known: dict[Edge, tuple[tuple[Point, ...], CurveFit | None]] = {}

    def of(self, edge: Edge, points: tuple[Point, ...], family: Family, mode: Mode) -> CurveFit | None:
        """Return the fit of an edge, see `fit_of`."""
        known = self._known.get(edge)
        if known is None or known[0] != points:
            known = self._known[edge] = points, fit_of(points, family, mode)
        return known[1]
