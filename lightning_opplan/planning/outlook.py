"""What a search that is under way has cost, will cost, and can still buy, by what its trainings have taken so far."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning_opplan.planning.cost import EPOCHS_PER_EDGE, schedule_bound
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.progress import EdgeProgress
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.standings import Unit

__all__ = ["Outlook", "outlook_of"]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Where a search stands in terms of cost.

    Attributes:
        unit: What `spent`, `whole` and `budget` are counted in.
        spent: What has been spent, by running edges, too.
        whole: What the search will have cost at its end; ``None`` if nothing says.
        is_known: Whether `whole` follows from edges that have finished, or from the budget; before the first one has
            finished, the paper's number of epochs per edge is assumed.
        budget: What may be spent; ``None`` where there is no limit.
        seconds_to_go: Wall time to the end, with as many edges at a time as now; ``None`` if nothing says.
        num_trainings: What is left of the budget is enough for so many edges, or is shared by so many arms; ``None``
            without a budget.
        epochs_each: For arms: epochs for each of them.
    """

    unit: Unit
    spent: float
    whole: float | None
    is_known: bool
    budget: float | None
    seconds_to_go: float | None
    num_trainings: int | None = None
    epochs_each: float | None = None


def outlook_of(
    search: Search | Halving,
    *,
    running: Mapping[Edge, EdgeProgress] | None = None,
    num_workers: int = 1,
    max_gpu_hours: float | None = None,
    max_epochs: int | None = None,
    is_assuming: bool = True,
) -> Outlook:
    """Say what a search costs, from what has been measured.

    Args:
        search: The search.
        running: How far the edges have come that run or were interrupted.
        num_workers: Edges at a time.
        max_gpu_hours: Hours, times devices, after which no further edge is started.
        max_epochs: Epochs of an edge at most.
        is_assuming: Whether the paper's number of epochs may stand for the edges before the first one has finished.
    """
    running = {edge: each for edge, each in (running or {}).items() if edge not in search.outcomes}
    if isinstance(search, Halving):
        return _of_arms(search, running, num_workers)
    # What an interrupted edge has taken is in its progress, not in its pause before.
    spent = sum(outcome.device_seconds for outcome in search.known if outcome.edge not in running)
    spent += sum(each.seconds * each.devices for each in running.values())
    finished = list(search.outcomes.values())
    trained = sum(outcome.epochs_run for outcome in finished)
    epochs = trained / len(finished) if finished else float(min(EPOCHS_PER_EDGE, max_epochs or EPOCHS_PER_EDGE))
    price = _mean_price(finished) or _running_price(running.values())
    whole, to_go = None, None
    if search.is_complete:
        whole, to_go = spent, 0.0
    elif price is not None and (finished or is_assuming):
        left = _left(search, running, epochs, price)
        whole = spent + sum(seconds * devices for seconds, devices in left.values())
        lengths = {edge: left[edge][0] if edge in left else 0.0 for edge in search.edges}
        to_go = schedule_bound(search, lengths, max(num_workers, 1))
    budget = None if max_gpu_hours is None else 3600 * max_gpu_hours
    if whole is not None and to_go is not None and budget is not None and whole > budget and whole > spent:
        to_go *= max(budget - spent, 0.0) / (whole - spent)
    number = None
    if budget is not None and finished:
        mean = sum(outcome.device_seconds for outcome in finished) / len(finished)
        number = min(
            int(max(budget - spent, 0.0) / mean) if mean else len(search.edges), len(search.edges) - len(finished)
        )
    return Outlook(
        unit="gpu_hours",
        spent=spent / 3600,
        whole=None if whole is None else whole / 3600,
        is_known=bool(finished),
        budget=max_gpu_hours,
        seconds_to_go=to_go,
        num_trainings=number,
    )


def _left(
    search: Search, running: Mapping[Edge, EdgeProgress], epochs: float, price: float
) -> dict[Edge, tuple[float, int]]:
    """Seconds that every edge has yet to run, and on how many devices.

    An epoch takes what it took the edges into the same state. An edge that has come further than the mean is taken to
    be about to end.
    """
    by_state: dict[str, list[EdgeOutcome]] = {}
    for outcome in search.outcomes.values():
        by_state.setdefault(outcome.edge.child, []).append(outcome)
    prices = {state: _mean_price(outcomes) for state, outcomes in by_state.items()}
    devices = max([1, *(each.devices for each in search.known), *(each.devices for each in running.values())])
    left = {}
    for edge in search.edges:
        if edge in search.outcomes:
            continue
        known = search.paused.get(edge)
        done = running[edge].epoch if edge in running else known.epochs_run if known is not None else 0.0
        left[edge] = max(epochs - done, 0.0) * (prices.get(edge.child) or price) / devices, devices
    return left


def _mean_price(outcomes: Sequence[EdgeOutcome]) -> float | None:
    """Device-seconds of an epoch."""
    epochs = sum(outcome.epochs_run for outcome in outcomes)
    return sum(outcome.device_seconds for outcome in outcomes) / epochs if epochs else None


def _running_price(running: Collection[EdgeProgress]) -> float | None:
    epochs = sum(each.epoch for each in running)
    return sum(each.seconds * each.devices for each in running) / epochs if epochs else None


def _of_arms(search: Halving, running: Mapping[Edge, EdgeProgress], num_workers: int) -> Outlook:
    """The same of arms, whose end is that of the budget."""
    trained = sum(outcome.epochs_run for outcome in search.known)
    seconds = sum(outcome.seconds for outcome in search.known)
    fresh = 0.0  # epochs that the search has not been told of
    for edge, progress in running.items():
        known = search.outcome(edge)
        fresh += max(progress.epoch - (known.epochs_run if known is not None else 0.0), 0.0)
        seconds += max(progress.seconds - (known.seconds if known is not None else 0.0), 0.0)
    price = search.spent / trained if trained else 1.0 if search.unit == "epochs" else None
    spent = search.spent + fresh * (price or 0.0)
    left = max(search.budget - spent, 0.0)
    alive = search.rungs[-1].edges if search.rungs else tuple(search.edges)
    num_epochs = left / price if price else None
    pace = seconds / (trained + fresh) if trained + fresh else None
    to_go = None if num_epochs is None or pace is None else num_epochs * pace / max(num_workers, 1)
    return Outlook(
        unit=search.unit,
        spent=spent,
        whole=search.spent if search.is_complete else search.budget,
        is_known=True,
        budget=search.budget,
        seconds_to_go=0.0 if search.is_complete else to_go,
        num_trainings=len(alive),
        epochs_each=None if num_epochs is None else num_epochs / max(len(alive), 1),
    )
