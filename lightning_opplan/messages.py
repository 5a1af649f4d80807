"""Sentences for wrong arguments, the same everywhere, and which errors are such sentences."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

__all__ = [
    "OpplanError",
    "checked_choice",
    "checked_names",
    "checked_numbers",
    "first_difference",
    "is_of_package",
    "suggestion",
]

_MISTAKES: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
"""Errors that are raised by no sentence of ours."""


class OpplanError(Exception):
    """What goes wrong in a search; wrong arguments are a `ValueError`."""


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


def checked_names(argument: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """Raise a `ValueError` for the first name that is not valid, with the close matches."""
    valid = tuple(valid)
    for name in given:
        if name not in valid:
            raise ValueError(f"`{argument}` must name options it has, got {name!r}. {suggestion(str(name), valid)}")


def checked_numbers(given: object, *names: str) -> None:
    """Raise a `ValueError` for the first of some attributes that is neither a number nor ``None``."""
    for name in names:
        value = getattr(given, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"`{name}` must be a number, got {value!r}.")


def first_difference(known: Any, given: Any, key: str = "") -> str | None:
    """Say where two trees of JSON values first differ, or return `None`."""
    if isinstance(known, dict) and isinstance(given, dict):
        for name in [*known, *(name for name in given if name not in known)]:
            place = f"{key}.{name}" if key else str(name)
            if name not in given:
                return f"`{place}` was {known[name]!r} and is gone"
            if name not in known:
                return f"`{place}` is new ({given[name]!r})"
            difference = first_difference(known[name], given[name], place)
            if difference:
                return difference
        return None
    return None if known == given else f"`{key}` was {known!r} and is now {given!r}"


def is_of_package(error: BaseException) -> bool:
    """Whether an error was raised by this package on purpose, so that its sentence says all.

    What is a programmer's mistake by its type is not, wherever it comes from: its traceback is wanted.
    """
    frames = traceback.extract_tb(error.__traceback__)
    is_raised_here = bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
    return is_raised_here and not isinstance(error, _MISTAKES)
