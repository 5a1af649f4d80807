"""Which libraries there are, and what they are asked for."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol, cast

from lightning_opplan.models.library_network import LibraryNetwork

__all__ = ["SOURCES", "known_names", "network_from"]


class _Source(Protocol):
    """What a module that knows a library has."""

    def names(self) -> list[str]:
        """Return the names of its networks, without that of the library."""

    def build(self, name: str, *, weights: str | None, num_classes: int, **options: Any) -> LibraryNetwork:
        """Make a network of one of these names."""


SOURCES: Final[Mapping[str, str]] = {
    "timm": "timm_networks",
    "torchvision": "torchvision_networks",
    "transformers": "transformers_networks",
}
"""The modules that know the libraries; they are imported, with their library, when they are asked for."""


def known_names(source: str | None = None) -> list[str]:
    """Return the names of a library's networks, such as ``torchvision/mvit_v2_s``.

    Args:
        source: The library; by default all that are installed.

    Raises:
        ModuleNotFoundError: If that library is not installed.
    """
    sources = [each for each in SOURCES if find_spec(each) is not None] if source is None else [source]
    return [f"{each}/{name}" for each in sources for name in _module(each).names()]


def network_from(source: str, name: str, *, weights: str | None = None, **options: Any) -> LibraryNetwork:
    """Make a network of a library; see `get_model`."""
    return _module(source).build(name, weights=weights, **options)


def _module(source: str) -> _Source:
    if find_spec(source) is None:
        raise ModuleNotFoundError(
            f"Networks of {source} need an extra that is not installed: pip install 'lightning-opplan[{source}]'."
        )
    return cast(_Source, import_module(f"lightning_opplan.models.libraries.{SOURCES[source]}"))
