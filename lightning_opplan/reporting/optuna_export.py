"""A search as a study of Optuna, to be looked at with its dashboard and its plots: each edge is a trial."""

import math
import os
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_opplan.planning.graph import Setting
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

__all__ = ["write_optuna"]


def write_optuna(
    dirpath: str | os.PathLike[str],
    storage: "str | os.PathLike[str] | optuna.storages.BaseStorage",
    *,
    study_name: str | None = None,
) -> "optuna.Study":
    """Write a search as a study of Optuna.

    A trial is an edge: its setting are the parameters, its validations the intermediate values, by epoch, and its
    value is the trial's. What diverged has failed; arms that a budgeted search gave up are pruned. Parent, knee and
    cost are among the user attributes. The journal knows durations and no dates: trials follow one another, and the
    last one ended when the journal was last written.

    Args:
        dirpath: The folder of the search.
        storage: A URL such as ``sqlite:///search.db``, a storage of Optuna's, or the file of a journal storage, which
            is replaced.
        study_name: By default the name of the folder, with a number where there is a study of that name.

    Raises:
        FileNotFoundError: If there is no journal in the folder.
        ModuleNotFoundError: If Optuna is not installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "An export to Optuna needs it. Install it with `pip install 'lightning-opplan[optuna]'`."
        ) from error
    folder = Path(dirpath)
    plan, search = Journal.of(folder).read()
    if isinstance(storage, os.PathLike) or (isinstance(storage, str) and "://" not in storage):
        file = Path(storage)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(
        storage=storage,
        study_name=study_name or _free_name(folder.resolve().name, optuna.get_all_study_names(storage)),
        direction="maximize" if plan.mode == "max" else "minimize",
    )
    for name, value in (("monitor", plan.monitor), ("seed", plan.seed), ("written by", "lightning-opplan")):
        study.set_user_attr(name, value)
    distributions = _distributions(search.graph.settings[state] for state in search.graph.states[1:])
    ended = datetime.fromtimestamp(Journal.of(folder).file.stat().st_mtime, UTC).replace(tzinfo=None)
    started = ended - timedelta(seconds=sum(outcome.seconds for outcome in search.known))
    for outcome in search.known:
        trial = _trial(search, outcome, distributions)
        trial.datetime_start, started = started, started + timedelta(seconds=outcome.seconds)
        trial.datetime_complete = started
        study.add_trial(trial)
    return study


def _free_name(name: str, taken: Collection[str]) -> str:
    """The name, or the first one with a number that no study has."""
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _trial(
    search: Search | Halving, outcome: EdgeOutcome, distributions: "Mapping[str, BaseDistribution]"
) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState, create_trial

    setting = search.graph.settings[outcome.edge.child]
    curve = {epoch: value for epoch, value in outcome.curve if value is not None}
    if outcome.value is None:
        state = TrialState.FAIL if not outcome.is_paused else TrialState.PRUNED
    else:
        state = TrialState.PRUNED if _is_given_up(search, outcome) else TrialState.COMPLETE
    further = {
        "parent": outcome.edge.parent, "child": outcome.edge.child, "knee_epoch": outcome.knee_epoch,
        "epochs_run": outcome.epochs_run, "standard_error": outcome.standard_error,
        "device_hours": outcome.device_seconds / 3600, "stopping_reason": outcome.stopping_reason,
    }  # fmt: skip
    # Steps are whole numbers: validations within an epoch are numbered instead.
    is_whole = all(float(epoch).is_integer() for epoch in curve)
    steps = {int(epoch) if is_whole else number: value for number, (epoch, value) in enumerate(curve.items())}
    return create_trial(
        state=state,
        value=outcome.value if state != TrialState.FAIL else None,
        params={key: _plain(value) for key, value in setting.items()},
        distributions={key: distributions[key] for key in setting},
        user_attrs={name: value for name, value in further.items() if value is not None},
        intermediate_values=steps,
    )


def _is_given_up(search: Search | Halving, outcome: EdgeOutcome) -> bool:
    """Whether a training was paused, and is not among those that go on or have won."""
    if isinstance(search, Halving):
        return bool(search.rungs) and outcome.edge not in search.rungs[-1].edges
    return outcome.is_paused


def _distributions(settings: Iterable[Setting]) -> "dict[str, BaseDistribution]":
    """What every key may be: a range of numbers, or a choice of anything else."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values: dict[str, list[Any]] = {}
    for setting in settings:
        for key, value in setting.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    found: dict[str, BaseDistribution] = {}
    for key, each in values.items():
        numbers = [value for value in each if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(each) or not all(map(math.isfinite, numbers)):
            found[key] = CategoricalDistribution(list(dict.fromkeys(map(_plain, each))))
        elif all(isinstance(value, int) for value in numbers):
            found[key] = IntDistribution(int(min(numbers)), int(max(numbers)), log=_is_wide(numbers))
        else:
            found[key] = FloatDistribution(min(numbers), max(numbers), log=_is_wide(numbers))
    return found


def _is_wide(numbers: list[float]) -> bool:
    """Whether numbers span so much that a logarithmic axis shows them better."""
    return min(numbers) > 0 and max(numbers) >= 8 * min(numbers)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
