"""Paths that were published, by name: states and epochs, without settings, which a graph gives."""

from importlib.resources import files
from pathlib import Path

__all__ = ["list_paths", "path_file"]


def list_paths() -> list[str]:
    """Return the names of the published paths, sorted.

    Example:
        >>> list_paths()[0]
        'activitynet'
    """
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name[-5:] == ".yaml"
    )


def path_file(name: str) -> Path | None:
    """Return the file of a published path; ``None`` if there is none of this name."""
    return Path(__file__).with_name(f"{name}.yaml") if name in list_paths() else None
