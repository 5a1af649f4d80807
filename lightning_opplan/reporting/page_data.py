"""What the report's page draws, as plain JSON values: the graph, every edge with its curve, and what runs."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from lightning_opplan.planning.graph import START, Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import UNMEASURED, PlanRecord
from lightning_opplan.planning.knee import Point
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.progress import EdgeProgress, SearchStatus
from lightning_opplan.planning.rows import best_edges
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.arms import arm_note, ordered_arms
from lightning_opplan.reporting.fits import Fits
from lightning_opplan.reporting.layout import base_of, one_way_each, places_of
from lightning_opplan.wording import duration

__all__ = ["embedded", "page_data"]

_QUIET: Final = 120.0  # seconds; a search that has said nothing for longer, and for five epochs, may have been killed


def page_data(
    plan: PlanRecord,
    search: Search | Halving,
    *,
    under_way: Mapping[Edge, EdgeProgress],
    status: SearchStatus | None,
    fits: Fits,
) -> dict[str, Any]:
    """Return what the page's script draws.

    Args:
        plan: The plan.
        search: Where its search stands.
        under_way: How far the edges have come that run or were interrupted.
        status: Whether it runs, if anything says.
        fits: The fits that are known.
    """
    state = "finished" if search.is_complete else "unknown" if status is None else status.state
    under_way = {edge: each for edge, each in under_way.items() if _is_news(search, each)}
    running = {edge: each for edge, each in under_way.items() if each.is_running and state in ("running", "unknown")}
    path = search.path(monitor=plan.monitor)
    chosen = () if path is None else search.way(path.steps[-1].state)
    edges: Sequence[Edge] = search.edges
    if isinstance(search, Halving):
        known = ordered_arms(search)
        edges = [*known, *(edge for edge in under_way if edge not in known)]
    unmeasured = {"v", "e"} if plan.kind in UNMEASURED else set()
    entries = []
    for edge in edges:
        entry = _entry(edge, plan, search, under_way.get(edge), chosen, fits)
        entry = {name: value for name, value in entry.items() if name not in unmeasured}
        if edge in under_way:
            entry["s"] = "running" if edge in running else "interrupted"
        entries.append(entry)
    data: dict[str, Any] = {
        "monitor": plan.monitor,
        "family": plan.options.rule.curve,
        "isArms": isinstance(search, Halving),
        "state": state,
        "heard": max([0.0 if status is None else status.updated, *(each.updated for each in under_way.values())]),
        "quiet": _quiet(running.values()),
        "edges": entries,
        "settings": {
            name: ", ".join(f"{key}: {value}" for key, value in setting.items())
            for name, setting in search.graph.settings.items()
            if name != START
        },
    }
    if isinstance(search, Halving):
        data |= {"rungs": [rung.epochs for rung in search.rungs], "chance": search.chance}
    elif plan.kind == "plan":
        data |= _graph(search, edges, chosen, under_way)
    return data


def embedded(content: Any) -> str:
    """Return JSON that can stand in a script element, whatever it holds: nothing in it ends the element.

    Example:
        >>> "</script>" in embedded({"</script>": float("nan")})
        False
    """
    text = json.dumps(_finite(content), allow_nan=False, separators=(",", ":"), default=str)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _finite(content: Any) -> Any:
    """The same with numbers that JSON has, of eight digits."""
    if isinstance(content, float):
        number = float(f"{content:.8g}")
        return None if not math.isfinite(number) else int(number) if number.is_integer() else number
    if isinstance(content, Mapping):
        return {str(name): _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def _is_news(search: Search | Halving, progress: EdgeProgress) -> bool:
    """Whether an edge has come further than the journal knows, or runs without an end so far."""
    if progress.edge not in search.edges or progress.edge in search.outcomes:
        return False
    known = search.outcome(progress.edge)
    return known is None or progress.is_running or progress.epoch > known.epochs_run


def _quiet(running: Collection[EdgeProgress]) -> float:
    paces = [each.seconds / each.epoch for each in running if each.epoch]
    return max([_QUIET, *(5 * pace for pace in paces)])


def _entry(
    edge: Edge,
    plan: PlanRecord,
    search: Search | Halving,
    progress: EdgeProgress | None,
    chosen: Collection[Edge],
    fits: Fits,
) -> dict[str, Any]:
    """One edge; what it does not have is left out."""
    outcome = search.outcome(edge)
    entry: dict[str, Any] = {"p": edge.parent, "c": edge.child, "s": _status(edge, search, chosen)}
    if outcome is not None:
        entry |= {
            "v": outcome.value,
            "e": _error(edge, search, outcome),
            "k": outcome.knee_epoch,
            "n": outcome.epochs_run,
            "d": outcome.device_seconds,
            "t": duration(outcome.seconds),
            "w": outcome.stopping_reason,
            "a": outcome.since,
        }
        if isinstance(search, Halving):
            entry["o"] = arm_note(search, edge)
    points = () if outcome is None else outcome.curve
    if progress is not None and (progress.curve or outcome is None):
        points = progress.curve
        entry |= {"v": None, "e": None, "k": progress.knee, "n": progress.epoch, "u": progress.until}
        entry |= {"d": progress.seconds * progress.devices, "t": duration(progress.seconds), "l": progress.value}
    entry |= _curve(points)
    if not isinstance(search, Halving):
        fit = fits.of(edge, points, plan.options.rule.curve, plan.mode)
        if fit is not None:
            entry |= {"f": list(fit.parameters), "r": fit.r_squared, "q": fit.rmse}
    return {name: value for name, value in entry.items() if value not in (None, "")}


def _status(edge: Edge, search: Search | Halving, chosen: Collection[Edge]) -> str:
    outcome = search.outcome(edge)
    if outcome is None:
        return "todo"
    if outcome.value is None and not outcome.is_paused:
        return "diverged"
    if edge in chosen:
        return "path"
    if isinstance(search, Halving):
        return "other"
    if outcome.is_paused:
        return "paused"
    return "best" if edge in best_edges(search) else "other"


def _error(edge: Edge, search: Search | Halving, outcome: EdgeOutcome) -> float | None:
    if isinstance(search, Halving):
        return None if search.value(edge) is None else search.standard_error(edge)
    return outcome.standard_error


def _curve(points: Sequence[Point]) -> dict[str, Any]:
    """Values, and their epochs: the first one alone where the others follow."""
    if not points:
        return {}
    first = points[0][0]
    is_regular = all(epoch == first + number for number, (epoch, _) in enumerate(points))
    return {"x": first if is_regular else [epoch for epoch, _ in points], "y": [value for _, value in points]}


def _graph(
    search: Search, edges: Sequence[Edge], chosen: Collection[Edge], under_way: Collection[Edge]
) -> dict[str, Any]:
    """States with their places, and arcs with the number of the entry that each of them shows."""
    graph, places = search.graph, places_of(search.graph)
    number = {edge: index for index, edge in enumerate(edges)}
    shown = {base: number[each.edge] for base, each in one_way_each(search.outcomes, chosen or ()).items()}
    for edge in (*under_way, *edges):  # of several ways along an arc, one that is trained now
        shown.setdefault(base_of(edge), number[edge])
    index = {state: position for position, state in enumerate(graph.states)}
    on_path = {base_of(edge).child for edge in chosen} | ({START} if chosen else set())
    finals = set(graph.finals.values())
    return {
        "states": [
            {
                "n": state,
                "x": places[state][0],
                "y": places[state][1],
                "f": state in finals,
                "v": search.outcomes[search.leaders[state]].value if state in search.leaders else None,
                "p": state in on_path,
            }
            for state in graph.states
        ],
        "arcs": [[index[arc.parent], index[arc.child], shown[arc]] for arc in graph.edges],
    }
