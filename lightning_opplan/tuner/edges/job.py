"""The description of an edge, and of a training in general."""

from dataclasses import dataclass, field

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.graph import START, Edge, Setting
from lightning_opplan.planning.knee import KneeRule, ValueKind
from lightning_opplan.planning.schedule import FixedStage
from lightning_opplan.tuner.edges.folder import TrainingFolder
from lightning_opplan.tuner.edges.runs import RunName

__all__ = ["ArmJob", "EdgeJob", "Training"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training under one setting.

    Attributes:
        setting: The setting.
        weights: File of the weights that it begins with; ``None`` for those that the model is made with.
        seed: Seed of everything random in it.
        devices: Devices to train on, if not those of the Trainer.
        accumulate: Times as many batches to accumulate, as there are fewer devices than the Trainer was meant for.
        num_threads: Threads of torch on the CPU; ``None`` leaves them as they are.
        averaging: Whether a moving average of the weights is validated and kept.
        folder: Where it writes.
        run: What it is called in its loggers; ``None`` leaves them as they are.
    """

    setting: Setting
    weights: str | None
    seed: int
    devices: int | None = None
    accumulate: int = 1
    num_threads: int | None = None
    averaging: bool = False
    folder: TrainingFolder
    run: RunName | None = None


@dataclass(frozen=True, kw_only=True)
class ArmJob:
    """What the training of an arm has to measure and keep beside its validations.

    Attributes:
        since: The epoch of its parent that it starts from, if it is a fork.
        measures_chance: Whether to measure what predicting the frequencies of the classes is worth.
        keeps_snapshots: Whether the weights of every pause are kept, to be forked.
    """

    since: int | None = None
    measures_chance: bool = False
    keeps_snapshots: bool = False


@dataclass(frozen=True, kw_only=True)
class EdgeJob:
    """The description of an edge.

    Attributes:
        edge: Parent and child state.
        training: What is to be trained: the child state's setting, from the parent state's weights on.
        until: The epoch after which it is paused; ``None`` if it trains to its end.
        start_value: y₀ of an edge from the start; ``None`` for the default.
        monitor: Metric to follow.
        mode: Whether a higher or a lower value of it is better.
        rule: When it stops.
        rival: A value to reach, or be given up.
        value: What the edge's value is: that of the fitted curve at the knee, or the validation there.
        max_epochs: Epochs to train at most, beside what the Trainer says.
        stage: Epochs and schedule of a training whose length is given, in place of the knee.
        arm: What is to be measured, if the edge is an arm of a budgeted search, in place of the knee.
        plan: Fingerprint of the plan; what another plan left in the folder is no use.
    """

    edge: Edge
    training: Training
    until: int | None = None
    start_value: float | None
    monitor: str
    mode: Mode
    rule: KneeRule = field(default_factory=KneeRule)
    rival: float | None = None
    value: ValueKind = "fitted"
    max_epochs: int | None = None
    stage: FixedStage | None = None
    arm: "ArmJob | None" = None
    plan: str

    @property
    def is_from_start(self) -> bool:
        """Whether nothing has been trained before it."""
        return self.edge.parent == START

    @property
    def folder(self) -> TrainingFolder:
        """Where the edge writes."""
        return self.training.folder
