"""The report of a search: one HTML file that needs nothing beside it, made from what lies in the search's folder."""

import base64
import hashlib
import os
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from lightning_opplan.files import write_text
from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import UNMEASURED, Journal, PlanRecord
from lightning_opplan.planning.outlook import outlook_of
from lightning_opplan.planning.path import OptimizationPath
from lightning_opplan.planning.progress import SearchStatus, edges_under_way
from lightning_opplan.planning.promise import Promise, promise_of
from lightning_opplan.planning.search import Search
from lightning_opplan.reporting.arms import choice_sentences
from lightning_opplan.reporting.comparison import comparison_of, cost_rows, runner_ups, spent
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.reporting.fits import Fits
from lightning_opplan.reporting.outlook_facts import outlook_facts
from lightning_opplan.reporting.page_data import embedded, page_data
from lightning_opplan.reporting.templates import template
from lightning_opplan.reporting.tested import tested_of, verdict
from lightning_opplan.wording import duration

__all__ = ["Page", "page_of", "write_report"]

_SCRIPT: Final = ("entries", "curves", "graph", "arms", "table", "enlarged", "page")
"""Parts of the script that draws the data, in this order; what somebody has written reaches the page as text."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The report before it is a page.

    Attributes:
        title: Name of the folder.
        data: What the script draws.
        sections: What is text and tables, by the name of its place, as HTML.
    """

    title: str
    data: dict[str, Any]
    sections: dict[str, str]

    def html(self) -> str:
        """Return the page as one file."""
        folder = files("lightning_opplan.reporting").joinpath("script")
        parts = "\n".join(folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPT)
        script = f'"use strict";\n(() => {{\n{parts}}})();\n'
        # The browser runs this script and no other, whatever a name in the data tries.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        content = {"title": self.title, "script": Markup(script), "digest": digest}
        sections = {name: Markup(html) for name, html in self.sections.items()}
        return template("report").render(**content, sections=sections, data=Markup(embedded(self.data)))

    def update(self) -> str:
        """Return what changes as the search goes on, as JSON."""
        return embedded({"data": self.data, "sections": self.sections})


def write_report(
    dirpath: str | os.PathLike[str], *, reload_seconds: float | None = None, fits: Fits | None = None
) -> Path:
    """Write ``report.html`` beside a journal, of a finished search or of one under way.

    Args:
        dirpath: The folder of the search.
        reload_seconds: Let the page reload itself so often, as the file is going to be renewed; by default never.
        fits: What has been fitted before.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
    """
    folder = Path(dirpath)
    page = page_of(folder, fits=fits)
    if reload_seconds is not None and page.data["state"] != "finished":
        page = replace(page, data={**page.data, "reload": reload_seconds})
    file = folder / "report.html"
    write_text(file, page.html(), sync=reload_seconds is None)
    return file


def page_of(folder: Path, *, fits: Fits | None = None) -> Page:
    """Read what there is to report of a search, finished or under way.

    Args:
        folder: The folder of the search.
        fits: What has been fitted before.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
    """
    plan, search = Journal.of(folder).read()
    status = SearchStatus.read(folder)
    under_way = edges_under_way(folder, plan.fingerprint)
    data = page_data(plan, search, under_way=under_way, status=status, fits=fits or Fits())
    path = search.path(monitor=plan.monitor)
    is_chains, is_arms = plan.kind != "plan", isinstance(search, Halving)
    tested = tested_of(folder) if plan.kind == "plan" else ()
    comparison = comparison_of(folder)
    outlook = None
    if not search.is_complete:
        num_workers = 1 if status is None else status.num_workers
        measured = outlook_of(
            search,
            running=under_way,
            num_workers=num_workers,
            max_gpu_hours=None if status is None else status.max_gpu_hours,
            max_epochs=plan.options.max_epochs_per_edge,
            is_assuming=not is_chains,
        )
        outlook = outlook_facts(search, measured, num_workers=num_workers)
    content = {
        "plan": plan,
        "rule": plan.options.rule,
        "search": search,
        "state": data["state"],
        "path": path,
        "is_chains": is_chains,
        "is_measured": plan.kind not in UNMEASURED,
        "is_arms": is_arms,
        "facts": _facts(plan, search, path),
        "outlook": outlook,
        "comparison": comparison,
        "cost_rows": cost_rows(comparison) if comparison.grid else [],
        "runner_ups": runner_ups(search),
        "hours_of": hours_of,
        "in_thousands": in_thousands,
        "tested": tested if any(row.value is not None for row in tested) else (),
        "verdict": verdict(tested, plan.mode),
        "choice": choice_sentences(search) if isinstance(search, Halving) else [],
    }
    sections = {
        name: template(f"report_{name}").render(content) for name in ("summary", "path", "figure", "tables", "curves")
    }
    return Page(title=folder.resolve().name, data=data, sections=sections)


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
            *([] if promise is None or plan.kind in UNMEASURED else _promised(promise, plan.monitor)),
            ("epochs along the path", f"{path.total_epochs:g}"),
            *facts,
        ]
    return facts


def _promised(promise: Promise, monitor: str) -> list[tuple[str, str]]:
    return [
        (f"{monitor} at the end of the path", f"{promise.value:.4f}"),
        ("of it to be expected on new data", f"{promise.expected:.4f} ± {promise.error:.4f}"),
    ]
