"""Why `KneeStopping` ends a training, in one sentence each."""

from lightning_opplan.planning.curves import Mode
from lightning_opplan.planning.knee import KneeDecision, KneeRule, Point

__all__ = ["is_beyond", "number", "reason_to_stop"]


def reason_to_stop(
    decision: KneeDecision,
    last: Point,
    *,
    rule: KneeRule,
    monitor: str,
    mode: Mode,
    rival: float | None = None,
    stopping_threshold: float | None = None,
    divergence_threshold: float | None = None,
) -> str | None:
    """Return why training should end after a validation; ``None`` if it should go on.

    Args:
        decision: What the rule says of the curve.
        last: Epoch and value of the validation.
        rule: The rule.
        monitor: Name of the metric.
        mode: Whether a higher or a lower value is better.
        rival: A value that has been reached otherwise.
        stopping_threshold: A value that is good enough.
        divergence_threshold: A value that is too bad.
    """
    epoch, value = last
    peak = f"{number(decision.knee_value)} on the fitted curve"
    if value is not None and is_beyond(value, stopping_threshold, mode, is_better=True):
        return (
            f"{monitor} reached {number(value)} at epoch {epoch:g}, as good as the threshold of "
            f"{number(stopping_threshold)}."
        )
    if value is not None and is_beyond(value, divergence_threshold, mode, is_better=False):
        return (
            f"{monitor} was {number(value)} at epoch {epoch:g}, worse than the threshold of "
            f"{number(divergence_threshold)}; training stopped."
        )
    if decision.dropped:
        return (
            f"{monitor} had no chance to reach {number(rival)}, what a rival had reached; training stopped at epoch "
            f"{epoch:g}."
        )
    if decision.stop and rule.max_risk:
        return (
            f"{monitor} peaked at epoch {number(decision.knee_epoch)} ({peak}); the next {rule.horizon} epochs are "
            f"better with a probability below {rule.max_risk:g}."
        )
    if decision.stop and decision.fit is None:
        gained = "stayed the same" if rule.rule == "paper" else "gained no more than its noise"
        return (
            f"{monitor} {gained} up to epoch {epoch:g}; its best value was {number(decision.knee_value)} at "
            f"epoch {number(decision.knee_epoch)}."
        )
    if decision.stop:
        return (
            f"{monitor} peaked at epoch {number(decision.knee_epoch)} ({peak}); nothing better came in the "
            f"{epoch - (decision.knee_epoch or 0):g} epochs after it."
        )
    if value is None and rule.check_finite:
        return f"{monitor} was not finite at epoch {epoch:g}; training stopped."
    return None


def is_beyond(value: float, threshold: float | None, mode: Mode, *, is_better: bool) -> bool:
    """Whether a value is as good as a threshold, or worse than it."""
    if threshold is None:
        return False
    ahead = (value - threshold) * (1.0 if mode == "max" else -1.0)
    return ahead >= 0 if is_better else ahead < 0


def number(value: float | None) -> str:
    """Return a value as sentences give it."""
    return "none" if value is None else f"{value:.4g}"
