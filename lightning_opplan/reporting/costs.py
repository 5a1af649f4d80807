"""The table of what a search would cost."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lightning_opplan.planning.cost import CostEstimate, in_thousands
from lightning_opplan.wording import duration

__all__ = ["cost_tables"]


def cost_tables(cost: CostEstimate) -> Group:
    """Return an estimate as tables: a row for each state, and what follows for the search."""
    states = Table(
        title="States: edges into each, and an epoch",
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        pad_edge=False,
    )
    states.add_column("state", no_wrap=True)
    for name in ("edges", "batches", "val.", "epoch", "frames", "device time"):
        states.add_column(name, justify="right", no_wrap=True)
    for state, each in cost.states.items():
        number = sum(edge.child == state for edge in cost.edges)
        hours = number * cost.epochs * each.epoch_seconds * each.devices / 3600
        states.add_row(
            Text(state),
            str(number),
            str(each.train_batches),
            str(each.val_batches),
            duration(each.epoch_seconds) if each.epoch_seconds >= 10 else f"{each.epoch_seconds:.2f} s",
            in_thousands(each.clip_frames),
            hours_of(hours),
        )

    total = Table(title="The search", box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False)
    total.add_column("what")
    total.add_column("estimate")
    source = (
        "mean of the finished edges" if cost.is_known else "assumed: the mean of the paper's search, or max_epochs"
    )
    total.add_row("states, edges to run", f"{len(cost.states)}, {len(cost.edges)} of {cost.num_edges}")
    total.add_row("epochs per edge", f"{cost.epochs:.3g} ({source})")
    total.add_row("device time (hours × devices)", hours_of(cost.hours))
    total.add_row("clip-frames to train on", in_thousands(cost.clip_frames))
    wall = ", ".join(f"{hours_of(hours)} with {number}" for number, hours in cost.wall_hours.items())
    total.add_row("wall time, by edges at a time", wall)
    chain = " → ".join(dict.fromkeys(state for edge in cost.critical_path for state in edge))
    total.add_row("critical path", Text(f"{hours_of(cost.critical_hours)}: {chain}"))
    total.add_row("edges at a time, at most", str(cost.width))
    one, many = cost.peak_disk
    disk = f"{in_thousands(one, 'B')} with one edge at a time" + (
        f", {in_thousands(many, 'B')} with {cost.width}" if cost.width > 1 else ""
    )
    total.add_row("disk, at most", disk)
    ratio = f" (the search: {cost.whole_hours / cost.final_hours:.1f} times as much)" if cost.final_hours else ""
    total.add_row("one training along a path", f"{hours_of(cost.final_hours)}, {cost.final_epochs:.0f} epochs{ratio}")
    if cost.grid_hours is not None:
        ratio = f" (the search: 1/{cost.grid_hours / cost.whole_hours:.1f} of it)" if cost.whole_hours else ""
        total.add_row(f"the hand-tuned grid, {cost.grid_trainings} trainings", f"{hours_of(cost.grid_hours)}{ratio}")
    if cost.advice is not None:
        total.add_row("it could cost less", cost.advice)
    return Group(states, total)


def hours_of(hours: float) -> str:
    """Write hours shortly.

    Example:
        >>> hours_of(12.34), hours_of(0.01), hours_of(4057)
        ('12.3 h', '36 s', '4,057 h')
    """
    if hours >= 99.95:
        return f"{hours:,.0f} h"
    return f"{hours:.3g} h" if hours >= 1.5 else duration(3600 * hours)
