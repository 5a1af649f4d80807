"""Networks of torchvision, for clips and for images."""

from typing import Any, Final

from torch import nn
from torchvision import models
from torchvision.models import video
from torchvision.models._api import WeightsEnum

from lightning_opplan.inputs import Preprocessing, Shape
from lightning_opplan.messages import suggestion
from lightning_opplan.models.library_network import LibraryNetwork, checkpoint_blocks, stages_around_trunk
from lightning_opplan.models.weights import downloaded, read_state

__all__ = ["build", "names"]

_ODD: Final = ("googlenet", "inception_v3")  # they return more than scores in training
_CLIP_LENGTHS: Final = {"s3d": 128, "swin3d_b": 32, "swin3d_s": 32, "swin3d_t": 32}
_CLIP_LENGTH: Final = 16
"""Frames of the clips that torchvision gives accuracies for (`clip_len` in its documentation): 16 but for these."""


def names() -> list[str]:
    """Return the names of the networks."""
    return sorted(name for module in (models, video) for name in models.list_models(module=module) if name not in _ODD)


def build(
    name: str,
    *,
    num_classes: int,
    weights: str | None = None,
    dropout: float | None = None,
    in_channels: int = 3,
    activation_checkpointing: bool = False,
    **options: Any,
) -> LibraryNetwork:
    """Make a network.

    Args:
        name: One of `names()`.
        num_classes: Classes.
        weights: A name of torchvision's weights, such as ``KINETICS400_V1`` or ``DEFAULT``, or a file.
        dropout: What torchvision calls so, where the network has it; by default its own.
        in_channels: 3, as torchvision's networks take nothing else.
        activation_checkpointing: Keep only the inputs of each block for the backward pass.
        options: What torchvision's function takes.

    Raises:
        ValueError: If an option does not fit, or there are no such weights.
        FileNotFoundError: If there is no such file.
        RuntimeError: If weights cannot be downloaded.
    """
    if in_channels != 3:
        raise ValueError(f"`in_channels` must be 3 for a network of torchvision, got {in_channels!r}.")
    known = models.get_model_weights(name)
    if dropout is not None:
        options["dropout"] = dropout
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        inner = models.get_model(name, weights=None, num_classes=num_classes, **given)
    except TypeError as error:
        if dropout is not None and "dropout" in str(error):
            raise ValueError(f"`dropout` must be left out for 'torchvision/{name}', which has none.") from error
        raise ValueError(
            f"`network_options` must be those of 'torchvision/{name}', got {options!r}: {error}."
        ) from error
    chosen = None if weights is None else _named(known, weights)
    classifier = [
        key for key, module in inner.named_modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d)
    ]
    classifiers = (classifier[-1],)
    stages = stages_around_trunk(inner, classifiers)
    is_video = name in models.list_models(module=video)
    network = LibraryNetwork(
        inner,
        name=f"torchvision/{name}",
        takes="clips" if is_video else "images",
        preprocessing=_preprocessing(name, chosen or next(iter(known)), is_video=is_video),
        classifiers=classifiers,
        stages=stages,
        **_fixed(inner, is_video=is_video),
    )
    if weights is not None:
        network.load_release_weights(read_state(weights) if chosen is None else downloaded(chosen, argument=weights))
    if activation_checkpointing:
        checkpoint_blocks(inner, network.blocks)
    return network


def _named(known: type[WeightsEnum], weights: str) -> WeightsEnum | None:
    """Return the weights of a name; ``None`` for a file."""
    if weights in known.__members__:
        return known[weights]
    if weights.isidentifier() and weights.upper() == weights:  # such a file would be a strange one
        raise ValueError(
            f"`weights` must be a file, or a name of torchvision's weights, got {weights!r}. "
            f"{suggestion(weights, known.__members__)}"
        )
    return None


def _preprocessing(name: str, weights: WeightsEnum, *, is_video: bool) -> Preprocessing:
    """What the weights' own transforms do."""
    transforms = weights.transforms()
    resize = transforms.resize_size
    return Preprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        crop_size=transforms.crop_size[0],
        short_side=min(resize),
        clip_length=_CLIP_LENGTHS.get(name, _CLIP_LENGTH) if is_video else None,
        interpolation="bicubic" if transforms.interpolation.value == "bicubic" else "bilinear",
    )


def _fixed(inner: nn.Module, *, is_video: bool) -> dict[str, Any]:
    """The only shape that a network takes, if there is one, and how to have another."""
    fixed: Shape | None = None
    hint = ""
    if isinstance(inner, video.MViT):
        strides, encoding = inner.conv_proj.stride, inner.pos_encoding
        grid = (encoding.temporal_size, *encoding.spatial_size)
        fixed = (3, *(size * stride for size, stride in zip(grid, strides, strict=True)))
    elif not is_video and isinstance(inner, models.VisionTransformer):
        fixed = (3, inner.image_size, inner.image_size)
        hint = "Another one is made with `network_options: {image_size: …}`."
    return {"fixed": fixed, "hint": hint}
