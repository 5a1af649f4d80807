"""Sentences for wrong arguments, the same everywhere."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["checked_choice", "suggestion"]


def suggestion(name: str, choices: Iterable[str], *, label: str = "Valid choices") -> str:
    """Name the close matches of a wrong name, or all choices if nothing is close.

    Example:
        >>> suggestion("dg_p3d_resnet5", ["dg_p3d_resnet50", "i3d_resnet18"])
        "Did you mean 'dg_p3d_resnet50'?"
    """
    choices = sorted(map(str, choices))
    close = get_close_matches(name, choices, n=3, cutoff=0.7)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    return f"{label}: {', '.join(map(repr, choices)) or 'none'}."


def checked_choice(argument: str, value: object, choices: Iterable[str]) -> None:
    """Raise a `ValueError` that lists the choices unless `value` is one of them."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"`{argument}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
