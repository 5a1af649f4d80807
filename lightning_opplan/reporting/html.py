"""The report of a search: one HTML file that needs nothing beside it, made from the journal alone."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from lightning_opplan.files import write_text
from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.promise import Promise, promise_of
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.arms import arm_note, arms_figure, choice_sentences, ordered_arms
from lightning_opplan.reporting.comparison import Comparison, comparison_of, cost_rows, runner_ups, spent
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.reporting.figures import curve_figure, svg_of
from lightning_opplan.reporting.graph_figures import graph_figure, procedure_figure
from lightning_opplan.reporting.tested import tested_of, verdict
from lightning_opplan.wording import duration

__all__ = ["write_report"]

_MOST_IN_PANELS: Final = 40  # edges that can still be told apart in a quarter of the page


def write_report(dirpath: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` beside a journal, of a finished search or of one under way.

    Args:
        dirpath: The folder of the search.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
    """
    folder = Path(dirpath)
    plan, search = Journal.of(folder).read()
    file = folder / "report.html"
    write_text(file, _render(folder.resolve(), plan, search, comparison_of(folder)))
    return file


def _render(folder: Path, plan: PlanRecord, search: Search | Halving, comparison: Comparison) -> str:
    path = search.path(monitor=plan.monitor)
    chosen = () if path is None else search.way(path.steps[-1].state)
    is_chains = plan.kind != "plan"
    is_halving = isinstance(search, Halving)
    tested = tested_of(folder) if plan.kind == "plan" else ()
    environment = Environment(
        loader=PackageLoader("lightning_opplan.reporting", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja").render(
        title=folder.name,
        plan=plan,
        rule=plan.options.rule,
        search=search,
        path=path,
        is_chains=is_chains,
        facts=_facts(plan, search, path),
        comparison=comparison,
        cost_rows=cost_rows(comparison) if comparison.grid else [],
        runner_ups=runner_ups(search),
        hours_of=hours_of,
        in_thousands=in_thousands,
        is_halving=is_halving,
        tested=tested if any(row.value is not None for row in tested) else (),
        verdict=verdict(tested, plan.mode),
        graph_svg=_drawn(graph_figure(search, chosen=chosen)) if isinstance(search, Search) and not is_chains else "",
        procedure_svg=_drawn(procedure_figure(search, chosen=chosen))
        if isinstance(search, Search) and not is_chains and len(search.edges) <= _MOST_IN_PANELS
        else "",
        arms_svg=_drawn(arms_figure(search, monitor=plan.monitor)) if isinstance(search, Halving) else "",
        choice=choice_sentences(search) if isinstance(search, Halving) else [],
        rows=[_row(edge, plan, search, chosen) for edge in _edges(search)],
    )


def _edges(search: Search | Halving) -> Sequence[Edge]:
    return ordered_arms(search) if isinstance(search, Halving) else search.edges


def _facts(plan: PlanRecord, search: Search | Halving, path: OptimizationPath | None) -> list[tuple[str, str]]:
    taken = spent(search)
    done = ("edges done", f"{len(search.outcomes)} of {len(search.edges)}")
    facts = [
        ("arms", str(len(search.known))) if isinstance(search, Halving) else done,
        ("epochs trained", f"{taken.epochs:g}"),
        ("device time", duration(3600 * taken.device_hours)),
    ]
    if search.paused and isinstance(search, Search):
        facts.insert(1, ("edges paused", str(len(search.paused))))
    if taken.clip_frames is not None:
        facts.append(("frames trained on", in_thousands(taken.clip_frames)))
    if path is not None:
        promise = promise_of(search)
        facts = [
            *([] if promise is None else _promised(promise, plan.monitor)),
            ("epochs along the path", f"{path.total_epochs:g}"),
            *facts,
        ]
    return facts


def _promised(promise: Promise, monitor: str) -> list[tuple[str, str]]:
    return [
        (f"{monitor} at the end of the path", f"{promise.value:.4f}"),
        ("of it to be expected on new data", f"{promise.expected:.4f} ± {promise.error:.4f}"),
    ]


def _row(edge: Edge, plan: PlanRecord, search: Search | Halving, chosen: Collection[Edge]) -> dict[str, Any]:
    outcome = search.outcomes.get(edge, search.paused.get(edge))
    is_chosen, is_best = edge in chosen, edge in search.leaders.values()
    note = "path" if is_chosen else "best parent" if is_best else ""
    if isinstance(search, Halving):
        note = arm_note(search, edge)
    row: dict[str, Any] = {
        "edge": edge,
        "outcome": outcome,
        "kind": "path" if is_chosen else "" if is_best or outcome is None else "other",
        "note": "paused" if edge in search.paused and isinstance(search, Search) else note,
        "error": None,
    }
    if isinstance(search, Halving) and search.value(edge) is not None:
        row["error"] = search.standard_error(edge)
    if outcome is not None:
        figure = curve_figure(
            outcome,
            monitor=plan.monitor,
            mode=plan.mode,
            family=None if isinstance(search, Halving) else plan.options.rule.curve,
            is_chosen=is_chosen,
        )
        row.update(time=duration(outcome.seconds), svg=_drawn(figure))
    return row


def _drawn(figure: Figure) -> Markup:
    return Markup(svg_of(figure))
