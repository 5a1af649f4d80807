"""The report of a search: one HTML file that needs nothing beside it, made from the journal alone."""

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal, PlanRecord
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.search import (
    Outcomes,
    best_final,
    best_so_far,
    path_to,
    runnable_edges,
    searched_edges,
    winning_edges,
)
from lightning_opplan.reporting.comparison import Comparison, comparison_of, cost_rows, runner_ups, spent
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.reporting.figures import curve_figure, graph_figure
from lightning_opplan.reporting.terminal import duration

__all__ = ["write_report"]


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
    plan, outcomes = Journal(folder / "journal.jsonl").read()
    comparison = comparison_of(folder)
    file = folder / "report.html"
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(_render(folder.resolve().name, plan, outcomes, comparison), encoding="utf-8")
    os.replace(temporary, file)
    return file


def _render(title: str, plan: PlanRecord, outcomes: Outcomes, comparison: Comparison) -> str:
    beam = plan.search["beam"]
    is_complete = not runnable_edges(plan.graph, outcomes, plan.mode, beam)
    winners = winning_edges(plan.graph, outcomes, plan.mode, beam, partial=not is_complete)
    choose = best_final if is_complete else best_so_far
    final = choose(plan.graph, outcomes, plan.mode, beam)
    chosen = () if final is None else path_to(final, winners)
    path = None
    if final is not None:
        path = OptimizationPath.from_outcomes(
            plan.graph, outcomes, final, monitor=plan.monitor, mode=plan.mode, beam=beam, partial=not is_complete
        )
    edges = searched_edges(plan.graph, beam)
    kept = set(winners.values())
    environment = Environment(
        loader=PackageLoader("lightning_opplan.reporting", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja").render(
        title=title,
        plan=plan,
        outcomes=outcomes,
        path=path,
        edges=edges,
        is_complete=is_complete,
        is_chains=plan.search["trainings"] is not None,
        facts=_facts(plan, outcomes, path, len(edges)),
        comparison=comparison,
        cost_rows=cost_rows(comparison) if comparison.grid else [],
        runner_ups=runner_ups(plan, outcomes),
        hours_of=hours_of,
        in_thousands=in_thousands,
        graph_svg=""
        if plan.search["trainings"]
        else Markup(graph_figure(plan.graph, outcomes, winners=winners, chosen=chosen)),
        rows=[_row(edge, plan, outcomes, edge in kept, edge in chosen) for edge in edges],
    )


def _facts(
    plan: PlanRecord, outcomes: Outcomes, path: OptimizationPath | None, num_edges: int
) -> list[tuple[str, str]]:
    taken = spent(outcomes)
    facts = [("edges done", f"{len(outcomes)} of {num_edges}"), ("epochs trained", f"{taken.epochs:g}")]
    facts.append(("device time", duration(3600 * taken.device_hours)))
    if taken.clip_frames is not None:
        facts.append(("frames trained on", in_thousands(taken.clip_frames)))
    if path is not None:
        best = "—" if path.value is None else f"{path.value:.4f}"
        facts = [
            (f"{plan.monitor} at the end of the path", best),
            ("epochs along the path", f"{path.total_epochs:g}"),
            *facts,
        ]
    return facts


def _row(edge: Edge, plan: PlanRecord, outcomes: Outcomes, is_best: bool, is_chosen: bool) -> dict[str, Any]:
    outcome = outcomes.get(edge)
    row: dict[str, Any] = {
        "edge": edge,
        "outcome": outcome,
        "kind": "path" if is_chosen else "" if is_best or outcome is None else "other",
        "note": "path" if is_chosen else "best parent" if is_best else "",
    }
    if outcome is not None:
        figure = curve_figure(
            outcome, monitor=plan.monitor, mode=plan.mode, family=plan.knee["curve"], is_chosen=is_chosen
        )
        row.update(time=duration(outcome.seconds), svg=Markup(figure))
    return row
