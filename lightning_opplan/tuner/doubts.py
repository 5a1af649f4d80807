"""What to say of edges that look wrong, as they end."""

from collections.abc import Callable
from typing import Final

from lightning_opplan.planning.curves import falls
from lightning_opplan.planning.graph import START
from lightning_opplan.planning.knee import WAIT
from lightning_opplan.planning.outcome import EdgeOutcome
from lightning_opplan.planning.standings import standard_error
from lightning_opplan.tuner.spec import SearchSpec

__all__ = ["warnings_of"]

_ENOUGH_TO_TELL: Final = 10  # validations; fewer do not show whether a curve rises
_FAR: Final = 4.0  # standard errors


def warnings_of(spec: SearchSpec) -> Callable[[EdgeOutcome], str | None]:
    """What to say of an edge that looks wrong."""
    late_start = _late_start(spec)
    is_doubted = not spec.is_mode_given

    def warning(outcome: EdgeOutcome) -> str | None:
        nonlocal is_doubted
        values = [value for epoch, value in outcome.curve if epoch > 0 and value is not None]
        is_falling = falls(values) and outcome.edge.parent == START
        if is_doubted and is_falling and spec.arms is None and not outcome.is_paused:
            is_doubted = False
            return (
                f"{spec.monitor!r} was best at the first validation of {outcome.edge}. The search takes higher for "
                "better; give `mode` if it should not."
            )
        return late_start(outcome)

    return warning


def _late_start(spec: SearchSpec) -> Callable[[EdgeOutcome], str | None]:
    """What to say of an edge that stopped before it had learned anything."""
    rule = spec.options.rule_of(None, {})

    def warning(outcome: EdgeOutcome) -> str | None:
        is_from_start = outcome.edge.parent == START and not outcome.is_paused and spec.arms is None
        if not is_from_start or spec.stages or rule.wait or outcome.value is None:
            return None
        curve = outcome.curve
        if (
            len(curve) <= _ENOUGH_TO_TELL
            or rule.has_learned(curve, spec.mode)
            or not rule.decide(curve, spec.mode).stop
        ):
            return None
        # What has been learned within the first epoch is flat, too, but far above the untrained network.
        sign = 1.0 if spec.mode == "max" else -1.0
        first = next((value for epoch, value in curve if epoch > 0 and value is not None), None)
        if outcome.unlearned is not None and first is not None:
            error = standard_error(
                outcome.unlearned, (), outcome.num_validation if 0 <= outcome.unlearned <= 1 else None
            )
            if sign * (first - outcome.unlearned) > _FAR * error:
                return None
        return (
            f"{outcome.edge} stopped at epoch {outcome.epochs_run:g} although its curve is no better than a constant: "
            f"it may start to learn later. `plan.knee.wait: {WAIT * rule.patience:g}` waits for it."
        )

    return warning
