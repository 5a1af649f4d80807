"""The options of a search, the same in Python, in the group `plan` of a configuration, and in a journal."""

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

from lightning_opplan.messages import checked_choice, checked_numbers
from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import Axis, Setting, TransitionGraph
from lightning_opplan.planning.hand_tuned import EPOCHS, PAPER_DECAYS, Decay
from lightning_opplan.planning.knee import WAIT, KneeRule, ValueKind
from lightning_opplan.planning.schedule import Anneal
from lightning_opplan.planning.space import SearchSpace, is_rate
from lightning_opplan.planning.standings import Unit

__all__ = [
    "EXECUTORS",
    "PRESETS",
    "AxisOptions",
    "BudgetOptions",
    "ControlOptions",
    "DeliveryOptions",
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
        max_risk: See `KneeRule`; for edges that change nothing but the learning rate. Where the data change, curves
            fall and rise again, as they do from the start, and would be stopped too early.
        waits: Whether edges from the start wait for late starters; see `KneeRule`.
    """

    racing: bool = False
    max_risk: float = 0.0
    waits: bool = False


PRESETS: Final = {"paper": Preset(), "fast": Preset(racing=True, max_risk=0.3, waits=True)}


@dataclass(frozen=True, kw_only=True)
class AxisOptions:
    """An ordered list of settings.

    Args:
        name: What the axis is called.
        settings: One setting per step, from how training starts to how it ends.
        reversible: Whether it may step back by one while another axis advances.
        protect: Whether a budgeted search keeps one arm of every step to its end.
    """

    name: str
    settings: list[dict[str, Any]]
    reversible: bool = False
    protect: bool = False


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
        choices: Values without an order by configuration key, such as weight decays; for a search with a `budget`.
    """

    axes: list[AxisOptions] | None = None
    branches: dict[str, dict[str, Any]] | None = None
    starts: list[str] | None = None
    states: dict[str, dict[str, Any]] | None = None
    edges: list[tuple[str, str]] | None = None
    finals: dict[str, str] | None = None
    choices: dict[str, list[Any]] | None = None

    def built_axes(self) -> list[Axis]:
        """Return the axes."""
        return [
            Axis(axis.name, axis.settings, reversible=axis.reversible, protect=axis.protect)
            for axis in self.axes or ()
        ]

    def space(self) -> SearchSpace:
        """Build the space of a budgeted search.

        Raises:
            ValueError: If states are written out, or there is nothing to choose from.
        """
        if self.states is not None:
            raise ValueError(
                "`plan.graph` must have `axes`, `branches` or `choices` for a search with a budget, got `states`."
            )
        return SearchSpace(axes=self.built_axes(), branches=self.branches or {}, choices=self.choices or {})

    def build(self) -> TransitionGraph:
        """Build the graph.

        Raises:
            ValueError: If neither or both ways to write a graph are used, or the graph is not sound.
        """
        if self.choices:
            raise ValueError(
                "`plan.graph.choices` must be left out without a `plan.budget`, got "
                f"{', '.join(self.choices)}. The paper's search knows ordered axes only."
            )
        if (self.axes is None) == (self.states is None):
            given = "neither" if self.axes is None else "both"
            raise ValueError(f"`plan.graph` must have `axes`, or `states` and `edges`, got {given}.")
        if self.axes is not None:
            return TransitionGraph.lattice(axes=self.built_axes(), branches=self.branches, starts=self.starts)
        return TransitionGraph(self.states or {}, self.edges or [], finals=self.finals)


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """What a search and the delivery of what it found may spend, in one of three units.

    Args:
        epochs: Epochs over the training part; one over more data counts as so many times more.
        gpu_hours: Hours, times devices.
        clip_frames: Frames of clips trained on (samples, where batches hold no clips).
        search_share: Share of it for the search. `opplan deliver` spends the rest on training the winner anew, on all
            data; 1 if it is not going to.
        arms: Settings to begin with; by default 18, 12 where at most two rates are given, and fewer where the budget
            would give each of them less than eight epochs.
        eta: Of so many arms one goes on, for so many times as long.
        moves: How often the best arm is forked, in the last rung, into a setting one step away.
    """

    epochs: float | None = None
    gpu_hours: float | None = None
    clip_frames: float | None = None
    search_share: float = 0.4
    arms: int | None = None
    eta: int = 3
    moves: int = 0

    def __post_init__(self) -> None:
        checked_numbers(self, *get_args(Unit), "search_share", "arms", "eta", "moves")
        given = {unit: getattr(self, unit) for unit in get_args(Unit) if getattr(self, unit) is not None}
        if len(given) != 1 or not next(iter(given.values())) > 0:
            raise ValueError(
                f"`budget` must be a number above 0 of one of {', '.join(map(repr, get_args(Unit)))}, got {given!r}."
            )
        if not 0 < self.search_share <= 1:
            raise ValueError(f"`budget.search_share` must be above 0 and at most 1, got {self.search_share!r}.")
        if self.arms is not None and self.arms < 2:
            raise ValueError(f"`budget.arms` must be at least 2, got {self.arms!r}.")
        if self.eta < 2:
            raise ValueError(f"`budget.eta` must be at least 2, got {self.eta!r}.")
        if self.moves < 0:
            raise ValueError(f"`budget.moves` must be at least 0, got {self.moves!r}.")

    @property
    def unit(self) -> Unit:
        """What it is counted in."""
        return next(unit for unit in get_args(Unit) if getattr(self, unit) is not None)

    @property
    def amount(self) -> float:
        """All that may be spent."""
        amount: float = getattr(self, self.unit)
        return amount

    def decisive(self) -> dict[str, Any]:
        """Return what makes another search of it; with another amount the same one goes on."""
        return {"unit": self.unit, "arms": self.arms, "eta": self.eta, "moves": self.moves}

    def amounts(self) -> dict[str, Any]:
        """Return the rest, as plain JSON values."""
        return {self.unit: self.amount, "search_share": self.search_share}


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a search is done.

    Args:
        preset: The paper's search, or a cheaper one: hopeless edges are given up, and curves that will not rise
            stopped, where nothing but the learning rate changes.
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
        budget: Search by halving under a budget, in place of the paper's search.
        averaging: Validate, hand over and keep a moving average of the weights; a search with a budget always does.
        num_threads: Threads of torch per edge on the CPU. Sums are rounded otherwise with another number, so set it
            where results are to be equal to the last bit, wherever edges run.
        progress: Show the table of edges while the search runs.
        allow_changed_code: Go on with a search although the code of model, data or Trainer has changed since.
    """

    preset: Literal["paper", "fast"] = "paper"
    knee: KneeRule = field(default_factory=KneeRule)
    start_value: float | None = None
    value: ValueKind = "fitted"
    beam: int = 1
    max_epochs_per_edge: int | None = None
    max_gpu_hours: float | None = None
    budget: BudgetOptions | None = None
    averaging: bool = False
    num_threads: int | None = None
    progress: bool = True
    allow_changed_code: bool = False

    def __post_init__(self) -> None:
        checked_numbers(self, "start_value", "beam", "max_epochs_per_edge", "max_gpu_hours", "num_threads")
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
        preset, knee = PRESETS[self.preset], self.knee
        risk = preset.max_risk if knee.max_risk is None else knee.max_risk
        wait = (WAIT * knee.patience if preset.waits else 0.0) if knee.wait is None else knee.wait
        return replace(knee, max_risk=risk, wait=wait)

    def rule_of(self, before: Setting | None, setting: Setting) -> KneeRule:
        """Return the knee rule of an edge.

        Args:
            before: The parent state's setting; ``None`` for an edge from the start.
            setting: The child state's.
        """
        rule = self.rule
        changed = [] if before is None else [key for key in setting if before.get(key) != setting[key]]
        if self.knee.max_risk is None and (before is None or not all(map(is_rate, changed))):
            rule = replace(rule, max_risk=0.0)
        return rule if before is None else replace(rule, wait=0.0)

    def decisive(self) -> dict[str, Any]:
        """Return the options that a result depends on, beside the knee rule, as plain JSON values."""
        names = ("preset", "start_value", "value", "beam", "max_epochs_per_edge", "averaging")
        decisive = {name: getattr(self, name) for name in names}
        return decisive if self.budget is None else {**decisive, "budget": self.budget.decisive()}


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
        checked_numbers(self, "num_workers", "devices_per_edge", "cpus_per_edge", "max_restarts")
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
        decays: How the learning rate goes: ``"step"`` and ``"cosine"`` as in the paper, ``"warmup_cosine"`` as
            SlowFast is trained, and ``"multigrid"``, which changes the shape of the clips, too.
    """

    epochs: list[int] = field(default_factory=lambda: list(EPOCHS))
    decays: list[Decay] = field(default_factory=lambda: list(PAPER_DECAYS))


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """How `opplan deliver` trains what a search has found anew.

    Args:
        members: Trainings per branch; by default as many as the budget allows, eight at most.
        anneal: How the rate falls at the end; by default linearly over the last 30%, if nothing lowers it before.
    """

    members: int | None = None
    anneal: Anneal | None = None

    def __post_init__(self) -> None:
        if self.members is not None and self.members < 1:
            raise ValueError(f"`delivery.members` must be at least 1, got {self.members!r}.")


@dataclass(frozen=True, kw_only=True)
class ControlOptions:
    """What `opplan control` trains without any search.

    Args:
        schedules: How the rate falls: "linear" over the last 30%, "cosine" all the time. Each costs as much as search
            and delivery together.
    """

    schedules: list[Literal["linear", "cosine"]] = field(default_factory=lambda: ["linear", "cosine"])


@dataclass(frozen=True, kw_only=True)
class PlanOptions(SearchOptions):
    """What to plan, how, and where to write it.

    Args:
        dirpath: Folder of the search; the same folder again resumes.
        monitor: Metric that validation logs.
        mode: Whether a higher or a lower value of it is better; by default a higher one.
        graph: States and the edges between them.
        executor: Where edges run.
        grid: The hand-tuned trainings to compare with.
        delivery: How the winner is trained anew.
        control: What is trained without any search, for the same cost.
        final_setting: Goes on top of every setting of a path that is followed, of a delivery and of a control.
    """

    dirpath: str = "runs/plan"
    monitor: str = "val/accuracy"
    mode: Mode | None = None
    graph: GraphOptions = field(default_factory=GraphOptions)
    executor: ExecutorOptions = field(default_factory=ExecutorOptions)
    grid: GridOptions = field(default_factory=GridOptions)
    delivery: DeliveryOptions = field(default_factory=DeliveryOptions)
    control: ControlOptions = field(default_factory=ControlOptions)
    final_setting: dict[str, Any] = field(default_factory=dict)
