"""The options of a search, the same in Python, in the group `plan` of a configuration, and in a journal."""

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from lightning_opplan.messages import checked_choice
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Axis, TransitionGraph
from lightning_opplan.planning.hand_tuned import EPOCHS
from lightning_opplan.planning.knee import KneeRule, ValueKind

__all__ = [
    "EXECUTORS",
    "PRESETS",
    "AxisOptions",
    "ExecutorOptions",
    "GraphOptions",
    "GridOptions",
    "PlanOptions",
    "Preset",
    "SearchOptions",
]

EXECUTORS: Final = ("in_process", "processes", "ray", "dask", "slurm")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a search spends its time.

    Attributes:
        racing: Whether the edges into a state race; see `Search`.
        max_risk: See `KneeRule`.
    """

    racing: bool = False
    max_risk: float = 0.0


PRESETS: Final = {"paper": Preset(), "fast": Preset(racing=True, max_risk=0.3)}


@dataclass(frozen=True, kw_only=True)
class AxisOptions:
    """An ordered list of settings.

    Args:
        name: What the axis is called.
        settings: One setting per step, from how training starts to how it ends.
        reversible: Whether it may step back by one while another axis advances.
    """

    name: str
    settings: list[dict[str, Any]]
    reversible: bool = False


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """The transition graph: axes and branches, or states and edges written out.

    Args:
        axes: Ordered lists of settings; a transition advances one of them by one step.
        branches: Settings of alternatives that never mix, by name.
        starts: Positions that training may start from, such as "1-1".
        states: Settings of states by name, in place of `axes`.
        edges: Pairs of parent and child state, with `states`; the parent of a first state is "start".
        finals: Final state of each branch, with `states`; by default every state without a child.
    """

    axes: list[AxisOptions] | None = None
    branches: dict[str, dict[str, Any]] | None = None
    starts: list[str] | None = None
    states: dict[str, dict[str, Any]] | None = None
    edges: list[tuple[str, str]] | None = None
    finals: dict[str, str] | None = None

    def built_axes(self) -> list[Axis]:
        """Return the axes."""
        return [Axis(axis.name, axis.settings, reversible=axis.reversible) for axis in self.axes or ()]

    def build(self) -> TransitionGraph:
        """Build the graph.

        Raises:
            ValueError: If neither or both ways to write a graph are used, or the graph is not sound.
        """
        if (self.axes is None) == (self.states is None):
            given = "neither" if self.axes is None else "both"
            raise ValueError(f"`plan.graph` must have `axes`, or `states` and `edges`, got {given}.")
        if self.axes is not None:
            return TransitionGraph.lattice(axes=self.built_axes(), branches=self.branches, starts=self.starts)
        return TransitionGraph(self.states or {}, self.edges or [], finals=self.finals)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a search is done.

    Args:
        preset: The paper's search, or a cheaper one: hopeless edges are given up, and curves that will not rise
            stopped.
        knee: When an edge stops.
        start_value: Value of an untrained model (y₀ of the edges from the start). By default it is measured; where
            higher is better, a value above 0 then counts as 0, what the paper takes an untrained classifier to be
            worth.
        value: Value of an edge: that of the fitted curve at the knee (as in the authors' release), or the validation
            that was observed there (as the paper says).
        beam: Ways into a state that are followed; the paper follows the best one.
        max_epochs_per_edge: Epochs of an edge at most.
        max_gpu_hours: Start no further edge once so many hours, times devices, are spent; the result is then the best
            so far.
        num_threads: Threads of torch per edge on the CPU. Sums are rounded otherwise with another number, so set it
            where results are to be equal to the last bit, wherever edges run.
        progress: Show the table of edges while the search runs.
    """

    preset: Literal["paper", "fast"] = "paper"
    knee: KneeRule = field(default_factory=KneeRule)
    start_value: float | None = None
    value: ValueKind = "fitted"
    beam: int = 1
    max_epochs_per_edge: int | None = None
    max_gpu_hours: float | None = None
    num_threads: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        checked_choice("preset", self.preset, PRESETS)
        checked_choice("value", self.value, get_args(ValueKind))
        for name in ("beam", "max_epochs_per_edge", "num_threads"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"`{name}` must be at least 1, got {number!r}.")
        if self.max_gpu_hours is not None and not self.max_gpu_hours > 0:
            raise ValueError(f"`max_gpu_hours` must be above 0, got {self.max_gpu_hours!r}.")

    @property
    def racing(self) -> bool:
        """Whether the edges into a state race; see `Search`."""
        return PRESETS[self.preset].racing

    @property
    def rule(self) -> KneeRule:
        """The knee rule, with what the preset says where `knee` says nothing."""
        if self.knee.max_risk is not None:
            return self.knee
        return replace(self.knee, max_risk=PRESETS[self.preset].max_risk)

    def decisive(self) -> dict[str, Any]:
        """Return the options that a result depends on, beside the knee rule, as plain JSON values."""
        names = ("preset", "start_value", "value", "beam", "max_epochs_per_edge")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """Where edges run.

    Args:
        name: In this process (or the ranks of its group), in processes of this machine, or by an engine for several.
        num_workers: Edges at a time; by default as many as there is room for.
        devices_per_edge: Devices of an edge, a divisor of `trainer.devices`; gradients are accumulated so that an
            update sees as many samples as on all of them. By default half of one machine's GPUs, if two edges can run
            at once.
        address: Address of a Ray or Dask cluster; "slurm", "local" or "debug" for SLURM. By default a local one is
            started.
        cpus_per_edge: Processors to ask an engine for.
        max_restarts: How often an edge whose process died is started again.
        options: For SLURM: arguments of submitit, such as {slurm_partition: gpu, timeout_min: 600}.
    """

    name: Literal["in_process", "processes", "ray", "dask", "slurm"] = "in_process"
    num_workers: int | None = None
    devices_per_edge: int | None = None
    address: str | None = None
    cpus_per_edge: int = 1
    max_restarts: int = 3
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_choice("executor.name", self.name, EXECUTORS)
        for name in ("num_workers", "cpus_per_edge"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"`executor.{name}` must be at least 1, got {number!r}.")
        if self.max_restarts < 0:
            raise ValueError(f"`executor.max_restarts` must be at least 0, got {self.max_restarts!r}.")


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """The hand-tuned trainings of `opplan grid`.

    Args:
        epochs: Epochs of a whole training to try; by default those of the paper.
    """

    epochs: list[int] = field(default_factory=lambda: list(EPOCHS))


@dataclass(frozen=True, kw_only=True)
class PlanOptions(SearchOptions):
    """What to plan, how, and where to write it.

    Args:
        dirpath: Folder of the search; the same folder again resumes.
        monitor: Metric that validation logs.
        mode: Whether a higher or a lower value of it is better.
        graph: States and the edges between them.
        executor: Where edges run.
        grid: The hand-tuned trainings to compare with.
        final_setting: Goes on top of every state's setting when a path is followed.
    """

    dirpath: str = "runs/plan"
    monitor: str = "val/accuracy"
    mode: Mode = "max"
    graph: GraphOptions = field(default_factory=GraphOptions)
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    grid: GridOptions = field(default_factory=GridOptions)
    final_setting: dict[str, Any] = field(default_factory=dict)
