"""How a search under way stands, in words: what it has cost, how long it goes on, and what the budget still buys."""

from dataclasses import dataclass

from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outlook import Outlook
from lightning_opplan.planning.search import Search
from lightning_opplan.planning.standings import Unit
from lightning_opplan.reporting.costs import hours_of
from lightning_opplan.wording import duration

__all__ = ["OutlookFacts", "outlook_facts"]


@dataclass(frozen=True, kw_only=True)
class OutlookFacts:
    """An outlook as it is shown.

    Attributes:
        share: What has been spent, of all that will be, between 0 and 1; ``None`` if nothing says.
        cost: What has been spent, beside that.
        facts: Value and name of what else there is to say.
        note: Where the estimate is from.
    """

    share: float | None
    cost: str
    facts: tuple[tuple[str, str], ...]
    note: str


def outlook_facts(search: Search | Halving, outlook: Outlook, *, num_workers: int) -> OutlookFacts:
    """Put an outlook into words."""
    spent = _amount(outlook.spent, outlook.unit)
    is_budget = outlook.whole is not None and outlook.whole == outlook.budget
    whole = None if outlook.whole is None else _amount(outlook.whole, outlook.unit)
    cost = spent if whole is None else f"{spent} of {'' if is_budget else 'about '}{whole}"
    facts = []
    if outlook.seconds_to_go is not None:
        at_a_time = f", {num_workers} at a time" if num_workers > 1 else ""
        facts.append((f"about {duration(outlook.seconds_to_go)}", f"to go{at_a_time}"))
    bought = _bought(search, outlook)
    if bought is not None:
        facts.append(bought)
    notes = {
        True: "By what the finished edges took.",
        False: (
            "Before the first edge has finished, each is taken to need 30 epochs, the mean of the paper's search, or "
            "as many as it may have at most."
        ),
    }
    note = "" if isinstance(search, Halving) or outlook.whole is None else notes[outlook.is_known]
    if outlook.budget is not None and not is_budget:
        note = f"{note} It starts no further edge after {_amount(outlook.budget, outlook.unit)}.".strip()
    share = None if not outlook.whole else min(outlook.spent / outlook.whole, 1.0)
    return OutlookFacts(share=share, cost=cost, facts=tuple(facts), note=note)


def _bought(search: Search | Halving, outlook: Outlook) -> tuple[str, str] | None:
    """What the budget still buys."""
    if outlook.budget is None or outlook.num_trainings is None:
        return None
    left = _amount(max(outlook.budget - outlook.spent, 0.0), outlook.unit)
    if not isinstance(search, Halving):
        to_come = len(search.edges) - len(search.outcomes)
        return f"{outlook.num_trainings} of {to_come} edges", f"still fit in the budget, of which {left} are left"
    if outlook.epochs_each is None:
        return None
    arms = f"{outlook.num_trainings} arms" if outlook.num_trainings != 1 else "1 arm"
    return f"{in_thousands(outlook.epochs_each)} epochs × {arms}", f"still fit in the budget, of which {left} are left"


def _amount(number: float, unit: Unit) -> str:
    if unit == "gpu_hours":
        return hours_of(number)
    return f"{in_thousands(number)} {'epochs' if unit == 'epochs' else 'clip-frames'}"
