"""What a search asks for and what it is told: pieces of work, and what became of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_opplan.planning.graph import Edge

__all__ = ["EdgeOutcome", "Outcomes", "Work"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A piece of work: an edge to train, or to go on with where it was paused.

    Attributes:
        edge: The edge.
        until: The epoch, counted from the edge's beginning, after which it reports back even if it has not ended;
            ``None`` if it is to train to its own end.
        since: The epoch of its parent whose weights it starts from; ``None`` for those that the parent ended with.
    """

    edge: Edge
    until: int | None = None
    since: int | None = None


@dataclass(frozen=True, kw_only=True)
class EdgeOutcome:
    """What is known of an edge that has finished, or that has been paused; equal ones may differ in time.

    Attributes:
        edge: The edge.
        value: What the child state is worth by this route: V of eq. 2. ``None`` if the training diverged, which is
            worse than any value.
        knee_epoch: Epochs after which the weights were taken; 0 if they are the parent's.
        epochs_run: Epochs that were trained.
        curve: ``(epoch, value)`` of every validation, y₀ included where it is known. A value is ``None`` where
            it was not finite.
        seconds: Wall time, over all attempts.
        start_seconds: Of these, those before a first batch.
        weights: File of the knee's weights, relative to the edge's folder.
        standard_error: Of the value; ``None`` where nothing was fitted.
        is_paused: Whether the edge has not come to its end and can be gone on with; value and knee are those so far.
        stopping_reason: One sentence on why training ended.
        devices: Devices it was trained on.
        num_samples: Samples trained on, on all devices.
        clip_frames: Frames of the clips trained on, on all devices; ``None`` where batches hold no clips.
        sha256: Checksum of the weights.
        since: The epoch of its parent whose weights it started from, if those were not the last.
        num_validation: Samples of a validation, on all devices; of the smallest set, if there are several.
        unlearned: What always predicting the frequencies of the classes is worth, where it was measured; of an edge of
            the paper's search, what the untrained network is worth.
    """

    edge: Edge
    value: float | None
    knee_epoch: float
    epochs_run: float
    curve: tuple[tuple[float, float | None], ...] = ()
    seconds: float = field(default=0.0, compare=False)
    start_seconds: float = field(default=0.0, compare=False)
    weights: str | None = None
    standard_error: float | None = None
    is_paused: bool = False
    stopping_reason: str | None = None
    devices: int = 1
    num_samples: int | None = None
    clip_frames: int | None = None
    sha256: str | None = None
    since: int | None = None
    num_validation: int | None = None
    unlearned: float | None = None

    @property
    def device_seconds(self) -> float:
        """Wall time, times devices."""
        return self.seconds * self.devices

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "edge": list(self.edge), "curve": [list(point) for point in self.curve]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "EdgeOutcome":
        """Build an outcome from what `to_dict` returns; further keys are passed over.

        Raises:
            KeyError, TypeError, ValueError: If something is missing or is not what it must be.
        """
        known = {each.name: content[each.name] for each in fields(cls) if each.name in content}
        edge = Edge(*content["edge"])
        curve = tuple((float(epoch), value) for epoch, value in content["curve"])
        for value in (known["value"], known.get("standard_error"), *(value for _, value in curve)):
            if value is not None and not isinstance(value, int | float):
                raise ValueError(f"a value must be a number, got {value!r}")
        for epoch in (known["knee_epoch"], known["epochs_run"], *(epoch for epoch, _ in curve)):
            if not epoch >= 0:
                raise ValueError(f"an epoch must be at least 0, got {epoch!r}")
        return cls(**{**known, "edge": edge, "curve": curve})


Outcomes = Mapping[Edge, EdgeOutcome]
