"""What comes after a search: its winner trained anew on all data, several times, and the control of the same cost.

Both are searches of chains: resumed, shared out to executors, and accounted like any other.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_opplan.files import replacing, write_json
from lightning_opplan.messages import first_difference
from lightning_opplan.planning.chains import chain_graph
from lightning_opplan.planning.delivery import (
    SHARE_OF_SEARCH,
    Member,
    Price,
    control_members,
    control_settings,
    delivered_members,
    doubling,
    members_from,
)
from lightning_opplan.planning.graph import Setting
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal, JournalError, Kind
from lightning_opplan.planning.path import OptimizationPath, plain_setting
from lightning_opplan.planning.schedule import Anneal
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.standings import Unit
from lightning_opplan.reporting import write_report
from lightning_opplan.reporting.tested import ensemble_files
from lightning_opplan.tuner.edges.hush import hushed
from lightning_opplan.tuner.edges.ranks import Ranks
from lightning_opplan.tuner.ensemble import Ensemble, EnsembleMember
from lightning_opplan.tuner.estimate import measure_state
from lightning_opplan.tuner.executors.placement import runs_here
from lightning_opplan.tuner.search_run import run_search
from lightning_opplan.tuner.spec import Planned, SearchError, SearchResult, SearchSpec

__all__ = ["Delivered", "run_control", "run_delivery"]

AnySearch = Search | Halving


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What a delivery or a control came to.

    Attributes:
        weights: File of the weights of the best single training.
        ensembles: Files of the ensembles, by what their members have in common; a delivery has one.
        members: The trainings.
        result: What they took.
    """

    weights: Path
    ensembles: Mapping[str, Path]
    members: tuple[Member, ...]
    result: SearchResult


def run_delivery(
    tuner: Planned,
    *,
    members: int | None = None,
    anneal: Anneal | None = None,
    setting: Setting | None = None,
) -> Delivered:
    """Train what a search found anew, for every branch, from fresh seeds, for what is left of the budget.

    Below the search's folder, in ``deliver``: the weights of every training in ``weights/``, those of the best single
    one as ``weights.ckpt``, and ``ensemble.yaml``. Called again, it goes on where it was.

    Args:
        tuner: The search, which has ended. Without a budget, it counts as 40% of one.
        members: Trainings per branch, in place of as many as the budget allows.
        anneal: How the rate falls at the end; by default linearly over the last 30%, if nothing lowers it before.
        setting: Goes on top of every state's own: the place to add the validation set to the training set.

    Raises:
        JournalError: If there is no search of this plan in the folder.
        SearchError: If the search has not ended, or nothing is left of the budget.
    """
    spec = tuner.spec
    if members is not None and members < 1:
        raise ValueError(f"`members` must be at least 1, got {members!r}.")

    def decide(search: AnySearch, price: Price, unit: Unit) -> tuple[Member, ...]:
        paths = search.paths(monitor=spec.monitor)
        rest = _total(spec, search, unit) - _spent(search, unit)
        if members is None and rest <= 0:
            raise SearchError(
                f"The search has spent the whole budget ({_spent(search, unit):g} {unit}): nothing is left to deliver."
            )
        return delivered_members(
            paths,
            price=price,
            rest=rest,
            doubling=doubling(search),
            number=members,
            anneal=anneal,
            setting=setting,
        )

    given = {"members": members, "anneal": None if anneal is None else anneal.to_dict()}
    return _run(tuner, "deliver", lambda search: _settings_of(search.paths()), decide, given, setting)


def run_control(
    tuner: Planned, *, schedules: Sequence[str] = ("linear", "cosine"), setting: Setting | None = None
) -> Delivered:
    """Train what nobody plans, for what the search and its delivery cost together, below its folder, in ``control``.

    For every branch one training at the last setting of each axis and the configuration's own learning rate, and the
    scores of the branches averaged.

    Args:
        tuner: The search, which has ended.
        schedules: How the rate falls: ``"linear"`` over the last 30%, ``"cosine"`` all the time. Each costs the whole.
        setting: Goes on top of every setting.

    Raises:
        JournalError: If there is no search of this plan in the folder.
        SearchError: If the search has not ended.
    """
    spec = tuner.spec
    settings = control_settings(spec.axes, spec.branches, None if spec.arms else spec.graph)

    def decide(search: AnySearch, price: Price, unit: Unit) -> tuple[Member, ...]:
        total = _total(spec, search, unit)
        return control_members(settings, price=price, total=total, schedules=schedules, setting=setting)

    given = {"schedules": list(schedules)}
    return _run(tuner, "control", lambda _: list(settings.values()), decide, given, setting)


def _run(
    tuner: Planned,
    kind: Kind,
    settings_of: Callable[[AnySearch], Sequence[Setting]],
    decide: Callable[[AnySearch, Price, Unit], tuple[Member, ...]],
    given: Mapping[str, Any],
    setting: Setting | None,
) -> Delivered:
    """Decide on the members once, train them, and name them.

    Args:
        tuner: The search.
        kind: What they are, which names their folder.
        settings_of: All settings that members may have.
        decide: Makes the members.
        given: What was asked for; with something else the folder is another one's.
        setting: Goes on top of every setting.
    """
    spec = tuner.spec
    folder = spec.dirpath / kind
    with hushed():
        ranks = Ranks(spec.recipe.build_trainer(str(folder)) if runs_here(spec.executor) else None)
        search = _ended_search(spec, ranks)
        source = {"given": given, "setting": dict(setting or {}), "search": _standing(spec, search)}
        members = ranks.decide(lambda: _decided(folder, source))
        if members is None:
            unit = _unit(spec)
            price = _Price(spec, search, unit)
            wanted = [{**own, **(setting or {})} for own in settings_of(search)]
            spec.recipe.check(wanted)
            price.measure(wanted)
            members = ranks.decide(lambda: _keep(folder, source, decide(search, price, unit)))
    graph, stages = chain_graph(members)
    result = run_search(
        replace(
            spec,
            graph=graph,
            arms=None,
            dirpath=folder,
            options=replace(spec.options, preset="paper", beam=1, budget=None, averaging=True, max_gpu_hours=None),
            kind=kind,
            stages=stages,
            trainings={member.name: {"branch": member.branch, "group": member.group} for member in members},
        )
    )
    return ranks.decide(lambda: _publish(folder, members, result))


def _ended_search(spec: SearchSpec, ranks: Ranks) -> AnySearch:
    """The search of a plan, which must have ended."""

    def read() -> Any:
        journal = Journal.of(spec.dirpath)
        if not journal.file.is_file():
            raise JournalError(f"{spec.dirpath} has no search yet. Run `opplan plan` with this configuration first.")
        plan, search = journal.read()
        record = spec.record
        difference = first_difference(plan.to_dict(), record.to_dict())
        if difference:
            raise JournalError(f"{journal.file} is the journal of another plan: {difference}.")
        changed = plan.changed_code(record)
        if changed is not None and not spec.options.allow_changed_code:
            raise JournalError(
                f"{changed} Search in a new folder, or go on with `allow_changed_code` "
                "(`--plan.allow_changed_code true`)."
            )
        return search.known

    search = spec.record.search(ranks.decide(read))
    if not search.is_complete:
        raise SearchError("The search has not ended. Run `opplan plan` with this configuration to its end first.")
    if not search.paths():
        raise SearchError("The search has found no path: every training diverged.")
    return search


def _unit(spec: SearchSpec) -> Unit:
    """What is counted: the budget's unit; frames or samples, where the search has none."""
    return "clip_frames" if spec.options.budget is None else spec.options.budget.unit


def _spent(search: AnySearch, unit: Unit) -> float:
    if isinstance(search, Halving):
        return search.spent
    assert unit == "clip_frames"
    return float(sum(outcome.clip_frames or outcome.num_samples or 0 for outcome in search.known))


def _total(spec: SearchSpec, search: AnySearch, unit: Unit) -> float:
    budget = spec.options.budget
    return _spent(search, unit) / SHARE_OF_SEARCH if budget is None else budget.amount


def _standing(spec: SearchSpec, search: AnySearch) -> dict[str, Any]:
    """What a delivery or a control follows from."""
    budget = spec.options.budget
    paths = {branch: path.to_dict() for branch, path in search.paths(monitor=spec.monitor).items()}
    amounts = None if budget is None else budget.amounts()
    return {"paths": paths, "budget": amounts}


def _settings_of(paths: Mapping[str, OptimizationPath]) -> list[Setting]:
    return [plain_setting(step.setting) for path in paths.values() for step in path.steps]


class _Price:
    """What an epoch on all data costs, measured on a few batches of every setting."""

    def __init__(self, spec: SearchSpec, search: AnySearch, unit: Unit) -> None:
        self.spec, self.unit = spec, unit
        trained = [outcome for outcome in search.known if outcome.epochs_run and outcome.num_samples]
        self._samples = sum(each.num_samples or 0 for each in trained) / max(
            sum(each.epochs_run for each in trained), 1
        )
        self._measured: dict[str, float] = {}

    def measure(self, settings: Sequence[Setting]) -> None:
        """Measure what an epoch takes; on all ranks."""
        for setting in settings:
            key = _key(setting)
            if key in self._measured:
                continue
            # Where trainings run elsewhere, this process alone measures, on one device.
            cost = measure_state(self.spec.recipe, setting, devices=None if runs_here(self.spec.executor) else 1)
            self._measured[key] = {
                "epochs": cost.num_samples / self._samples if self._samples else 1.0,
                "gpu_hours": cost.train_batches * cost.train_seconds * cost.devices / 3600,
                "clip_frames": cost.clip_frames,
            }[self.unit]

    def __call__(self, setting: Setting) -> float:
        return self._measured[_key(setting)]


def _key(setting: Setting) -> str:
    return json.dumps(dict(setting), sort_keys=True, default=str)


def _decided(folder: Path, source: Mapping[str, Any]) -> tuple[Member, ...] | None:
    """The members that were decided on before."""
    file = folder / "members.json"
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    difference = first_difference(content["source"], _plain(source))
    if difference:
        raise JournalError(
            f"{folder} holds what followed from another search: {difference}. Move it away to begin anew."
        )
    return members_from(content["members"])


def _keep(folder: Path, source: Mapping[str, Any], members: Sequence[Member]) -> tuple[Member, ...]:
    content = _plain({"source": source, "members": [member.to_dict() for member in members]})
    write_json(folder / "members.json", content)
    return members_from(content["members"])


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file gives back."""
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def _publish(folder: Path, members: Sequence[Member], result: SearchResult) -> Delivered:
    """Give the weights their names, and write the ensembles."""
    named: dict[str, EnsembleMember] = {}
    for member in members:
        weights = result.ends.get(member.name)
        if weights is not None:
            target = folder / "weights" / (member.name.replace("/", ".").replace(" ", "-") + ".ckpt")
            _link(weights, target)
            named[member.name] = EnsembleMember(name=member.name, weights=target, setting=member.stages[-1][0])
    if not named:
        raise SearchError("Every training diverged: there is nothing to deliver. Start with a lower learning rate.")
    groups: dict[str, list[EnsembleMember]] = {}
    for member in members:  # they come best first
        if member.name in named:
            groups.setdefault(member.group, []).append(named[member.name])
    files = ensemble_files(folder, groups)
    for group, each in groups.items():
        Ensemble(members=tuple(each)).save(files[group])
    first = next(iter(groups.values()))[0]
    _link(first.weights, folder / "weights.ckpt")
    write_report(folder.parent)
    return Delivered(weights=folder / "weights.ckpt", ensembles=files, members=tuple(members), result=result)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where that cannot be, a copy."""
    if target.exists() and target.samefile(source):  # renaming one name of a file to another leaves both
        return
    with replacing(target, sync=False) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
