"""What a search costs: how long it takes on several workers, and how many epochs to expect."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lightning_opplan.planning.graph import START, Edge, split_route
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.search import Search

__all__ = [
    "EPOCHS_PER_EDGE",
    "CostEstimate",
    "StateCost",
    "critical_path",
    "in_thousands",
    "makespan",
    "parallel_width",
    "schedule_bound",
]

EPOCHS_PER_EDGE: Final = 30
"""Epochs that an edge takes if nothing is known.

The paper's grid of 60 trainings has 15 360 epochs (section 5.3), its search on Kinetics-400 cost 1/14 of that (Table
5, 288 h beside 4057 h), and its graph has 36 edges.
"""


@dataclass(frozen=True, kw_only=True)
class StateCost:
    """What an epoch under a setting costs.

    Attributes:
        train_batches: Batches of an epoch, per device.
        val_batches: Batches of its validation.
        train_seconds: Seconds per training batch, its loading included.
        val_seconds: Seconds per validation batch.
        clip_frames: Frames of clips per epoch, on all devices; samples, where batches hold no clips.
        num_samples: Samples per epoch, on all devices.
        weights: Bytes of the weights.
        devices: Devices it was measured on.
        max_epochs: Epochs that the Trainer allows.
    """

    train_batches: int
    val_batches: int
    train_seconds: float
    val_seconds: float
    clip_frames: float
    num_samples: float
    weights: int
    devices: int
    max_epochs: int | None

    @property
    def epoch_seconds(self) -> float:
        """Seconds of an epoch with its validation."""
        return self.train_batches * self.train_seconds + self.val_batches * self.val_seconds


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a search would cost, and what it is to be compared with. Hours count once for each device.

    Attributes:
        states: Costs of the states.
        edges: Edges that have not finished.
        num_edges: All edges; with a beam more than the graph has.
        epochs: Epochs that are expected of each edge.
        is_known: Whether that is the mean of edges that have finished; a figure of the paper otherwise.
        hours: Device-hours of the edges that have not finished.
        whole_hours: Device-hours of all edges.
        clip_frames: Frames that it trains on.
        critical_path: The longest chain of edges.
        critical_hours: Wall-clock hours of that.
        width: Edges that can run at once.
        wall_hours: Wall-clock hours by number of edges at a time.
        peak_disk: Bytes on the disk at most, for one edge at a time and for `width`.
        final_hours: Device-hours of one training along a path.
        final_epochs: Epochs of that.
        grid_hours: Device-hours of the hand-tuned grid, if the plan has one.
        grid_trainings: Trainings of the grid.
        advice: How the search could cost less, if there is a way that is known to find as much.
    """

    states: Mapping[str, StateCost]
    edges: tuple[Edge, ...]
    num_edges: int
    epochs: float
    is_known: bool
    hours: float
    whole_hours: float
    clip_frames: float
    critical_path: tuple[Edge, ...]
    critical_hours: float
    width: int
    wall_hours: Mapping[int, float]
    peak_disk: tuple[int, int]
    final_hours: float
    final_epochs: float
    grid_hours: float | None
    grid_trainings: int
    advice: str | None = None


def critical_path(search: Search | Halving, lengths: Mapping[Edge, float]) -> tuple[Edge, ...]:
    """Return the longest chain of edges that have to run one after the other.

    Args:
        search: The search.
        lengths: How long each of its edges takes.
    """
    chains: dict[str, tuple[float, tuple[Edge, ...]]] = {START: (0.0, ())}
    for edge in search.edges:  # in topological order
        before, way = chains[split_route(edge.parent)[0]]
        chain = before + lengths[edge], (*way, edge)
        chains[edge.child] = max(chains.get(edge.child, chain), chain, key=lambda chain: chain[0])
    return max(chains.values(), key=lambda chain: chain[0])[1]


def schedule_bound(search: Search | Halving, lengths: Mapping[Edge, float], num_workers: int) -> float:
    """Return the time that no schedule on so many workers can beat."""
    longest = sum(lengths[edge] for edge in critical_path(search, lengths))
    return max(longest, sum(lengths.values()) / num_workers)


def makespan(search: Search | Halving, lengths: Mapping[Edge, float], num_workers: int) -> float:
    """Return the time that a search takes on so many workers, from its beginning, in the order of its own choice.

    For a search with a budget this is the bound that no order can beat: its arms wait for each other at every rung.
    """
    if isinstance(search, Halving):
        return schedule_bound(search, lengths, num_workers)
    return _simulated(search, lengths, num_workers)[0]


def parallel_width(search: Search | Halving) -> int:
    """Return how many edges run at once at most, when all take equally long and there is a worker for each.

    As if none raced: those that wait for another one in this simulation may not when edges take unequally long.
    """
    if isinstance(search, Halving):
        return len(search.arms.arms)
    search = Search(search.graph, mode=search.mode, beam=search.beam)
    return _simulated(search, dict.fromkeys(search.edges, 1.0), len(search.edges))[1]


def _simulated(search: Search, lengths: Mapping[Edge, float], num_workers: int) -> tuple[float, int]:
    """The time at which the last edge ends, and the most edges that ran at once."""
    fresh = Search(search.graph, mode=search.mode, beam=search.beam, racing=search.racing)
    running: list[tuple[float, Edge]] = []
    now, widest = 0.0, 0
    while True:
        while len(running) < num_workers and (work := fresh.ask([edge for _, edge in running])) is not None:
            heapq.heappush(running, (now + lengths[work.edge], work.edge))
        widest = max(widest, len(running))
        if not running:
            return now, widest
        now, edge = heapq.heappop(running)
        fresh.tell(EdgeOutcome(edge=edge, value=0.0, knee_epoch=0, epochs_run=0))


def in_thousands(number: float, unit: str = "") -> str:
    """Write a large number shortly.

    Example:
        >>> in_thousands(1234567), in_thousands(999_700), in_thousands(7.25e9, "B")
        ('1.23 M', '1 M', '7.25 GB')
    """
    for prefix in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {prefix}{unit}".rstrip()
        number /= 1000
    return f"{number:.3g} T{unit}"
