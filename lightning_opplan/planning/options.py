"""A plan as configuration: what the group `plan` of a YAML file or command line holds."""

from dataclasses import dataclass, field
from typing import Any

from lightning_opplan.planning.curves import Family, Mode
from lightning_opplan.planning.graph import Axis, TransitionGraph

__all__ = ["AxisOptions", "GraphOptions", "KneeOptions", "PlanOptions"]


@dataclass
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


@dataclass
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

    def build(self) -> TransitionGraph:
        """Build the graph.

        Raises:
            ValueError: If neither or both ways to write a graph are used, or the graph is not sound.
        """
        if (self.axes is None) == (self.states is None):
            given = "neither" if self.axes is None else "both"
            raise ValueError(f"`plan.graph` must have `axes`, or `states` and `edges`, got {given}.")
        if self.axes is not None:
            axes = [Axis(axis.name, axis.settings, reversible=axis.reversible) for axis in self.axes]
            return TransitionGraph.lattice(axes=axes, branches=self.branches, starts=self.starts)
        return TransitionGraph(self.states or {}, self.edges or [], finals=self.finals)


@dataclass
class KneeOptions:
    """When an edge stops.

    Args:
        patience: Epochs to go on after the knee.
        curve: Family of the fitted curve.
        confirm: Consecutive validations that must ask for the stop.
        min_points: Validations before the first fit.
        min_delta: The knee is the first epoch whose fitted value is within `min_delta` of the best one.
        check_finite: Stop when the metric becomes NaN or infinite.
    """

    patience: float = 10
    curve: Family = "exponential"
    confirm: int = 1
    min_points: int = 10
    min_delta: float = 0.0
    check_finite: bool = True


@dataclass
class PlanOptions:
    """What to plan, and where to write it.

    Args:
        dirpath: Folder of the search; the same folder again resumes.
        monitor: Metric that validation logs.
        mode: Whether a higher or a lower value of it is better.
        graph: States and the edges between them.
        knee: When an edge stops.
        start_value: Value of an untrained model; by default measured, and 0 where higher is better and it is above 0.
        final_setting: Goes on top of every state's setting when a path is followed.
    """

    dirpath: str = "runs/plan"
    monitor: str = "val/accuracy"
    mode: Mode = "max"
    graph: GraphOptions = field(default_factory=GraphOptions)
    knee: KneeOptions = field(default_factory=KneeOptions)
    start_value: float | None = None
    final_setting: dict[str, Any] = field(default_factory=dict)
