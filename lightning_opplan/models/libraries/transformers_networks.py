"""Video transformers of Hugging Face's transformers (the extra ``transformers``)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn

from lightning_opplan.inputs import Preprocessing
from lightning_opplan.messages import suggestion
from lightning_opplan.models.library_network import LibraryNetwork, checkpoint_blocks, stages_around_trunk
from lightning_opplan.models.weights import read_state, unreachable

__all__ = ["build", "names"]

_KINDS: Final = {"timesformer": "Timesformer", "videomae": "VideoMAE", "vivit": "Vivit"}
"""Types of models, and what the names of their classes begin with."""

_NOT_OPTIONS: Final = (
    "id2label",
    "label2id",
    "num_labels",
    "transformers_version",
    "architectures",
    "dtype",
    "model_type",
)
_CLASSIFIER: Final = ("classifier",)
_SUFFIXES: Final = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
_FILES: Final = ("config.json", "model.safetensors", "preprocessor_config.json")


def names() -> list[str]:
    """Return the types of models."""
    return sorted(_KINDS)


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
        weights: A repository of the hub, such as ``MCG-NJU/videomae-base``, a folder with the files of one, whose
            configuration is taken, too, or a file of weights for the network that `options` say.
        dropout: ``None``: these networks have no dropout before the classifier.
        in_channels: Channels of the clips.
        activation_checkpointing: Keep only the inputs of each block for the backward pass.
        options: Values of the model's configuration, such as ``hidden_size``.

    Raises:
        ValueError: If an option does not fit, or the weights are of another model.
        FileNotFoundError: If there is no such file or folder.
        RuntimeError: If weights cannot be downloaded.
    """
    if dropout is not None:
        raise ValueError(
            f"`dropout` must be left out for 'transformers/{name}', which has none before its classifier, got "
            f"{dropout!r}. Set `network_options: {{hidden_dropout_prob: …}}` instead."
        )
    folder = _folder(weights)
    kind: Any = getattr(transformers, f"{_KINDS[name]}ForVideoClassification")
    config = _config(name, folder, {**options, "num_channels": in_channels}, num_classes)
    inner = kind(config) if folder is None else _pretrained(kind, folder, config)
    network = LibraryNetwork(
        inner,
        name=f"transformers/{name}",
        takes="clips",
        preprocessing=_preprocessing(name, folder, config),
        classifiers=_CLASSIFIER,
        stages=stages_around_trunk(inner, _CLASSIFIER),
        # TimeSformer takes others, too, but then mixes up places and times: it counts frames by its configuration.
        fixed=(in_channels, config.num_frames, _side(config.image_size), _side(config.image_size)),
        hint="Another one is made with `network_options: {num_frames: …, image_size: …}`.",
        score=_score,
        options={key: value for key, value in config.to_diff_dict().items() if key not in _NOT_OPTIONS},
    )
    if weights is not None and folder is None:
        network.load_release_weights(read_state(weights))
    if activation_checkpointing:
        checkpoint_blocks(inner, network.blocks)
    return network


def _score(inner: nn.Module, clips: Tensor) -> Tensor:
    scores: Tensor = inner(pixel_values=clips.transpose(1, 2)).logits
    return scores


def _folder(weights: str | None) -> str | None:
    """Return a folder, or the repository of one; ``None`` for a file, or nothing."""
    if weights is None or os.path.isdir(weights):
        return weights
    if os.path.isfile(weights) or Path(weights).suffix in _SUFFIXES:
        return None
    if weights.count("/") != 1 or weights.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"`weights` must be a folder, a file, or a repository of the hub, got {weights!r}: no such folder."
        )
    return weights


def _config(name: str, folder: str | None, options: Mapping[str, Any], num_classes: int) -> Any:
    kind = getattr(transformers, f"{_KINDS[name]}Config")
    valid = kind().to_dict()
    for option in options:
        if option not in valid:
            raise ValueError(
                f"`options` must be those of 'transformers/{name}', got {option!r}. {suggestion(option, valid)}"
            )
    if folder is None:
        return kind(num_labels=num_classes, **options)
    with unreachable(folder, lambda: _origin(folder)):
        config = transformers.AutoConfig.from_pretrained(folder)
    if config.model_type != name:
        raise ValueError(
            f"`weights` must be those of a {name!r}, got {folder!r}, which holds a {config.model_type!r}. Set "
            f"`network: transformers/{config.model_type}`."
        )
    config.num_labels = num_classes
    for key, value in options.items():
        setattr(config, key, value)
    return config


def _pretrained(kind: Any, folder: str, config: Any) -> Any:
    """Let the library load weights, and say what starts anew: the head, and nothing else."""
    with unreachable(folder, lambda: _origin(folder)):
        inner, info = kind.from_pretrained(
            folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, dtype=torch.float32
        )
    backbone = f"{kind.base_model_prefix}."
    anew = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    wrong = [key for key in anew if key.startswith(backbone)]
    if wrong:
        raise ValueError(
            f"`weights` must be those of this network, got {folder!r}, which lacks {', '.join(wrong[:5])}"
            f"{', …' if len(wrong) > 5 else ''} or has it of another shape."
        )
    if anew:
        rank_zero_info(f"{', '.join(anew)} start anew: the weights in {folder} have none, or of other classes.")
    return inner.train()


def _origin(folder: str) -> str:
    files = ", ".join(_FILES)
    return f"{folder} ({files})" if os.path.isdir(folder) else f"https://huggingface.co/{folder} ({files})"


def _preprocessing(name: str, folder: str | None, config: Any) -> Preprocessing:
    """What the processor of the weights does, or that of the type of models if there is none."""
    kind = getattr(transformers, f"{_KINDS[name]}VideoProcessor")
    found = kind
    if folder is not None:
        try:
            found = kind.from_pretrained(folder)
        except OSError:
            rank_zero_info(f"There is no preprocessor_config.json in {folder}: mean and std are those of {name}.")
    side = _side(config.image_size)
    resize = found.size.get("shortest_edge", side)
    crop = found.crop_size["height"]
    # What is made of a value x from 0 to 255: x · factor, for ViViT − 1, normalised or not.
    is_rescaled = getattr(found, "do_rescale", True)
    scale = 255 * float(getattr(found, "rescale_factor", 1 / 255)) if is_rescaled else 255.0
    shift = 1.0 if name == "vivit" and is_rescaled else 0.0
    is_normalised = getattr(found, "do_normalize", True)
    mean = tuple(found.image_mean) if is_normalised else (0.0,) * config.num_channels
    std = tuple(found.image_std) if is_normalised else (1.0,) * config.num_channels
    return Preprocessing(
        mean=tuple(round((each + shift) / scale, 9) for each in mean),
        std=tuple(round(each / scale, 9) for each in std),
        crop_size=side,
        short_side=max(round(side * resize / crop), side),
        clip_length=config.num_frames,
    )


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])
