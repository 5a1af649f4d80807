"""The networks by name, and the weights that they start from."""

import inspect
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar

from lightning_opplan.messages import suggestion
from lightning_opplan.models.video_resnet import BOTTLENECKS, DEPTHS, ResidualBlock, VideoNetwork, VideoResNet
from lightning_opplan.models.weights import download_image_weights, is_image_state, read_state

__all__ = ["get_model", "list_models", "load_weights", "register", "register_resnets"]

Builder = Callable[..., VideoNetwork]
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


def register_resnets(family: str, network: type[VideoResNet], block: type[ResidualBlock]) -> None:
    """Register ``<family>_resnet18`` to ``<family>_resnet152``."""
    for backbone, depths in DEPTHS.items():
        builder = partial(network, block, depths=depths, bottleneck=backbone in BOTTLENECKS, backbone=backbone)
        register(f"{family}_{backbone}")(builder)


def get_model(name: str, *, weights: str | None = None, **options: Any) -> VideoNetwork:
    """Build a network.

    Args:
        name: One of `list_models()`.
        weights: `"imagenet"` for torchvision's weights of the image network of the same depth, or the path of a file:
            such weights, a checkpoint of the authors, or one of this package. By default the network starts at random.
        options: What its builder takes: `num_classes` and, if wanted, `dropout`, `in_channels`,
            `activation_checkpointing`, and `alpha` and `lateral_frames` of SlowFast.

    Raises:
        ValueError: If there is no such network or option (the message names the closest ones), or the weights are not
            those of this network.
        FileNotFoundError: If the file of weights does not exist.
        RuntimeError: If weights cannot be downloaded.

    Example:
        >>> type(get_model("dg_p3d_tiny", num_classes=4)).__name__
        'DualHeadVideoResNet'
    """
    if name not in _BUILDERS:
        raise ValueError(f"`name` must be a registered network, got {name!r}. {suggestion(name, _BUILDERS)}")
    builder = _BUILDERS[name]
    valid = _options(builder)
    for option in options:
        if option not in valid:
            raise ValueError(f"`options` must be those of {name!r}, got {option!r}. {suggestion(option, valid)}")
    network = builder(**options)
    if weights is not None:
        load_weights(network, weights)
    return network


def load_weights(network: VideoNetwork, weights: str) -> None:
    """Let a network start from weights.

    Args:
        network: The network.
        weights: See `get_model`.
    """
    if weights == "imagenet":
        if network.backbone is None:
            raise ValueError("`weights` must be the path of a file, got 'imagenet': torchvision has no such network.")
        network.load_image_weights(download_image_weights(network.backbone))
        return
    state = read_state(weights)
    if is_image_state(state):
        network.load_image_weights(state)
    else:
        network.load_release_weights(state)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern, sorted.

    Example:
        >>> list_models("dg_p3d_resnet5*")
        ['dg_p3d_resnet50']
    """
    return sorted(name for name in _BUILDERS if fnmatch(name, pattern))


def _options(builder: Builder) -> set[str]:
    """Return the names that a builder takes by keyword, those that a subclass passes on included."""
    made = builder.func if isinstance(builder, partial) else builder
    names: set[str] = set()
    for function in [base.__init__ for base in made.__mro__] if isinstance(made, type) else [made]:  # type: ignore[misc]
        parameters = inspect.signature(function).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names
