"""The networks by name, our own and those of other libraries, and the weights that they start from."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar

from lightning_opplan.inputs import Preprocessing
from lightning_opplan.messages import checked_names, suggestion
from lightning_opplan.models.libraries import SOURCES, known_names, network_from
from lightning_opplan.models.network import ScoringNetwork
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


def get_model(name: str, *, weights: str | None = None, **options: Any) -> ScoringNetwork:
    """Build a network.

    Args:
        name: One of `list_models()`, or of another library: ``torchvision/mvit_v2_s``, ``timm/resnet50``,
            ``transformers/videomae``.
        weights: By default the network starts at random. For our own networks ``"imagenet"``, for torchvision's
            weights of the image network of the same depth, or the path of a file: such weights, a checkpoint of the
            authors, or one of this package. For those of other libraries what these call their weights
            (``KINETICS400_V1``, ``a1_in1k``, ``MCG-NJU/videomae-base``), or a file or folder of them.
        options: What its builder takes: `num_classes` and, if wanted, `dropout`, `in_channels`,
            `activation_checkpointing`, and `alpha` and `lateral_frames` of SlowFast; for networks of other libraries
            what these take, too, and `preprocessing`, values of a `Preprocessing` for weights in a file, which does
            not say them.

    Raises:
        ValueError: If there is no such network or option (the message names the closest ones), or the weights are not
            those of this network.
        FileNotFoundError: If the file of weights does not exist.
        ModuleNotFoundError: If the library is not installed.
        RuntimeError: If weights cannot be downloaded.

    Example:
        >>> type(get_model("dg_p3d_tiny", num_classes=4)).__name__
        'DualHeadVideoResNet'
    """
    source, separator, _ = name.partition("/")
    if separator and source in SOURCES:
        if name in known_names(source):
            return _from_library(name, weights, options)
        raise ValueError(f"`name` must be a network of {source}, got {name!r}. {_close(name)}")
    if name not in _BUILDERS:
        raise ValueError(f"`name` must be a registered network, got {name!r}. {_close(name)}")
    builder = _BUILDERS[name]
    valid = _options(builder)
    for option in options:
        if option not in valid:
            raise ValueError(f"`options` must be those of {name!r}, got {option!r}. {suggestion(option, valid)}")
    network = builder(**options)
    if weights is not None:
        load_weights(network, weights)
    return network


def _from_library(name: str, weights: str | None, options: dict[str, Any]) -> ScoringNetwork:
    """A network of another library, with what it is to be fed, which its weights say, or the option does."""
    source, _, rest = name.partition("/")
    asked = options.pop("preprocessing", None) or {}
    checked_names("preprocessing", asked, [field.name for field in fields(Preprocessing)])
    network = network_from(source, rest, weights=weights, **options)
    known = network.preprocessing
    assert known is not None
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()}
    network.preprocessing = replace(known, **given)
    # A checkpoint has to know it, which does not ask for the weights again; as lists, as configurations have them.
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(network.preprocessing).items()
    }
    network.options = {**network.options, "preprocessing": plain}
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

    Args:
        pattern: The pattern. One without a ``/`` matches our own networks, ``torchvision/*`` those of torchvision, and
            ``*/*`` those of all libraries that are installed.

    Raises:
        ModuleNotFoundError: If the pattern begins with the name of a library that is not installed.

    Example:
        >>> list_models("dg_p3d_resnet5*"), list_models("torchvision/r3d*")
        (['dg_p3d_resnet50'], ['torchvision/r3d_18'])
    """
    source, separator, _ = pattern.partition("/")
    names = known_names(source if source in SOURCES else None) if separator else _BUILDERS
    return sorted(name for name in names if fnmatch(name, pattern))


def _close(name: str) -> str:
    """Name the close matches of a wrong name over all libraries, whether it says which one it means or not."""
    names = [*_BUILDERS, *known_names()]
    last = name.rpartition("/")[2]
    # One that forgets its library, or names another one.
    exact = [each for each in names if each.rpartition("/")[2] == last]
    if exact:
        return f"Did you mean {' or '.join(map(repr, exact[:3]))}?"
    close = get_close_matches(name, names, n=3, cutoff=0.7)
    bare = {each.rpartition("/")[2]: each for each in reversed(names)}
    close += [bare[each] for each in get_close_matches(last, bare, n=3, cutoff=0.7)]
    if close:
        return f"Did you mean {' or '.join(map(repr, dict.fromkeys(close[:3])))}?"
    own = ", ".join(map(repr, sorted(_BUILDERS)))
    return f"Valid choices: {own}; and those of {', '.join(SOURCES)}, see `list_models('*/*')`."


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
