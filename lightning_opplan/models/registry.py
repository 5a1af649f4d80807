"""The networks by name."""

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any, TypeVar

from torch import nn

from lightning_opplan.planning.messages import suggestion

__all__ = ["get_model", "list_models", "register"]

Builder = Callable[..., nn.Module]
B = TypeVar("B", bound=Builder)
_BUILDERS: dict[str, Builder] = {}


def register(name: str) -> Callable[[B], B]:
    """Decorate the function that builds the network of this name."""

    def add(builder: B) -> B:
        if name in _BUILDERS:
            raise ValueError(f"`name` must be new, got {name!r}: a network of this name is registered already.")
        _BUILDERS[name] = builder
        return builder

    return add


def get_model(name: str, **options: Any) -> nn.Module:
    """Build a network.

    Args:
        name: One of `list_models()`.
        options: What its builder takes, such as `num_classes`, `dropout` and `in_channels`.

    Raises:
        ValueError: If there is no such network; the message names the closest ones.

    Example:
        >>> type(get_model("dg_p3d_tiny", num_classes=4)).__name__
        'VideoResNet'
    """
    if name not in _BUILDERS:
        raise ValueError(f"`name` must be a registered network, got {name!r}. {suggestion(name, _BUILDERS)}")
    return _BUILDERS[name](**options)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern, sorted.

    Example:
        >>> list_models("dg_p3d_resnet5*")
        ['dg_p3d_resnet50']
    """
    return sorted(name for name in _BUILDERS if fnmatch(name, pattern))
