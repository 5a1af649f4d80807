"""The fitted curves of a search's edges, each fitted once however often the search is looked at."""

from lightning_opplan.planning.curves import CurveFit, Family, Mode, fit_of
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.knee import Point

__all__ = ["Fits"]


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
