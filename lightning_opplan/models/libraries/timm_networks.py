"""Networks of timm, for images (the extra ``timm``)."""

from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import group_parameters
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_opplan.inputs import Preprocessing
from lightning_opplan.messages import suggestion
from lightning_opplan.models.library_network import LibraryNetwork, checkpoint_blocks, stages_around_trunk
from lightning_opplan.models.weights import read_state, unreachable

__all__ = ["build", "names"]

_DEFAULT = "DEFAULT"
_HINT = "Many of timm's transformers take others with `network_options: {dynamic_img_size: true}` or `{img_size: …}`."


def names() -> list[str]:
    """Return the names of the networks, without their weights."""
    found: list[str] = timm.list_models()
    return found


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
        weights: A tag of timm's weights, such as ``a1_in1k``, or ``DEFAULT`` for its first ones, or a file.
        dropout: Before the classifier; by default timm's, which is none.
        in_channels: Channels of the images.
        activation_checkpointing: Keep only the inputs of each block for the backward pass.
        options: What ``timm.create_model`` and the network take.

    Raises:
        ValueError: If an option does not fit, or there are no such weights.
        FileNotFoundError: If there is no such file.
        RuntimeError: If weights cannot be downloaded.
    """
    given = {"num_classes": num_classes, "in_chans": in_channels, **options}
    if dropout is not None:
        given["drop_rate"] = dropout
    tag = None if weights is None else _tag(name, weights)
    try:
        if tag is None:
            inner = timm.create_model(name, **given)
        else:
            with unreachable(str(weights), lambda: _origin(name, tag)):
                inner = timm.create_model(f"{name}.{tag}", pretrained=True, **given)
    except (TypeError, KeyError) as error:
        raise ValueError(f"`network_options` must be those of 'timm/{name}', got {options!r}: {error}.") from error
    classifier = inner.pretrained_cfg.get("classifier") or ()
    classifiers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    network = LibraryNetwork(
        inner,
        name=f"timm/{name}",
        takes="images",
        preprocessing=_preprocessing(inner),
        classifiers=classifiers,
        stages=_stages(inner, classifiers),
        hint=_HINT if inner.pretrained_cfg.get("fixed_input_size") else "",
    )
    if weights is not None and tag is None:
        network.load_release_weights(read_state(weights))
    if activation_checkpointing:
        if any(isinstance(module, _BatchNorm) for module in inner.modules()):
            # timm's own way moves their statistics a second time in the backward pass.
            checkpoint_blocks(inner, stages_around_trunk(inner, classifiers))
        else:
            inner.set_grad_checkpointing(True)
    return network


def _tag(name: str, weights: str) -> str | None:
    """Return the tag that names weights; ``None`` for a file."""
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if weights == _DEFAULT and tags:
        return str(timm.get_pretrained_cfg(name).tag)
    if weights in tags:
        return weights
    if "/" in weights or "." in weights:
        return None
    raise ValueError(
        f"`weights` must be a file, or a tag of timm's weights of {name!r}, got {weights!r}. "
        f"{suggestion(weights, [_DEFAULT, *tags] if tags else [])}"
    )


def _origin(name: str, tag: str) -> str:
    config = timm.get_pretrained_cfg(f"{name}.{tag}")
    return f"https://huggingface.co/{config.hf_hub_id} (model.safetensors)" if config.hf_hub_id else str(config.url)


def _preprocessing(inner: Any) -> Preprocessing:
    config = resolve_data_config({}, model=inner)
    crop_size = config["input_size"][-1]
    return Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_size=crop_size,
        short_side=int(crop_size / config["crop_pct"]),
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
    )


def _stages(inner: Any, classifiers: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The groups that timm itself gives layers rates by, the classifier left out."""
    if not hasattr(inner, "group_matcher"):
        return stages_around_trunk(inner, classifiers)
    groups = group_parameters(inner, inner.group_matcher(coarse=True))
    heads = tuple(f"{each}." for each in classifiers)
    # A norm that timm groups with the classifier belongs to the head, too.
    return tuple(
        tuple(names)
        for _, names in sorted(groups.items())
        if names and not any(name.startswith(heads) for name in names)
    )
