"""Weights from elsewhere: image networks inflated in time, and checkpoints under the authors' key names.

References:
    Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017 (inflation).
    Qiu et al., "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks", ICCV 2017.
    Wang et al., "Temporal Segment Networks", ECCV 2016 (averaging the RGB stem for optical flow).
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import get_model_weights
from torchvision.models._api import WeightsEnum

__all__ = [
    "StateDict",
    "download_image_weights",
    "downloaded",
    "fitted",
    "inflated",
    "is_image_state",
    "read_state",
    "unreachable",
    "unwrapped",
]

StateDict = dict[str, Tensor]

_WRAPPERS = ("model", "state_dict")
_PARALLEL = "module."  # put before every key by DistributedDataParallel
_NETWORK = "network."  # the network in a VideoClassifier
_CLASSIFIER = "fc."
_NUM_NAMED = 8


def read_state(path: str) -> StateDict:
    """Read a state dictionary, alone or inside a checkpoint, or a file of safetensors, onto the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dictionary, or more than tensors and plain values.
    """
    try:
        if path.endswith(".safetensors"):
            loaded = _safetensors(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"`weights` must be a name of weights or the path of a file, got {path!r}, which does not exist."
        ) from None
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the unpickler meets garbage with errors of any kind
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"which holds an object of {foreign[1]}" if foreign else "which is damaged or of another kind"
        raise ValueError(
            f"`weights` must be a file of tensors that loads with `weights_only=True`, got {path!r}, {reason}."
        ) from error
    return unwrapped(loaded)


def _safetensors(path: str) -> StateDict:
    if find_spec("safetensors") is None:
        raise ModuleNotFoundError(
            f"`weights` in {path!r} need safetensors, which comes with timm: pip install 'lightning-opplan[timm]'."
        )
    from safetensors.torch import load_file

    state: StateDict = load_file(path)
    return state


def unwrapped(state: Any) -> StateDict:
    """Take the state dictionary of a network out of a checkpoint.

    Args:
        state: A state dictionary, or a checkpoint with one under ``"model"`` (the authors') or ``"state_dict"``
            (Lightning's). Prefixes that wrappers put before the keys are taken off; what a LightningModule holds
            beside its network is left out.

    Raises:
        ValueError: If there is none.

    Example:
        >>> unwrapped({"model": {"module.fc.bias": torch.zeros(1)}})
        {'fc.bias': tensor([0.])}
    """
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"`weights` must hold a state dictionary, alone or under 'model' or 'state_dict', got {_described(state)}."
        )
    tensors: StateDict = {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    if any(key.startswith(_NETWORK) for key in tensors):
        tensors = {key.removeprefix(_NETWORK): value for key, value in tensors.items() if key.startswith(_NETWORK)}
    return tensors


def is_image_state(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a state dictionary is that of an image network: its kernels have no extent in time."""
    return not any(value.ndim == 5 for value in state.values())


def download_image_weights(backbone: str) -> StateDict:
    """Return torchvision's first ImageNet weights of a network, from its cache or by download.

    Raises:
        RuntimeError: If they can't be downloaded.
    """
    # Of the paper's time; V2 was trained another way.
    return downloaded(get_model_weights(backbone)["IMAGENET1K_V1"], argument="imagenet")


def downloaded(weights: WeightsEnum, *, argument: str) -> StateDict:
    """Return weights of torchvision, from its cache or by download.

    Args:
        weights: Which ones.
        argument: What they were asked for as.

    Raises:
        RuntimeError: If they can't be downloaded.
    """
    with unreachable(argument, lambda: str(weights.url), errors=(URLError, OSError, RuntimeError)):
        state: StateDict = weights.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    return state


@contextmanager
def unreachable(
    argument: str, source: Callable[[], str], *, errors: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Say which files to bring where a download fails.

    Args:
        argument: What was asked for.
        source: Returns where it is from.
        errors: What a failed download raises.

    Raises:
        RuntimeError: In the place of one of these errors.
    """
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            f"`weights={argument!r}` could not be downloaded from {source()}: {reason} Where there is no network, "
            "download that elsewhere and give its path as `weights`."
        ) from error


def inflated(
    network: nn.Module,
    image: Mapping[str, Tensor],
    *,
    image_name: Callable[[str], str | None],
    stems: Collection[str],
) -> tuple[StateDict, list[str]]:
    """Make the state of a video network from that of an image network of the same depth.

    Every 2D kernel goes to the middle tap of its kernel in time, the others are zero. A temporal convolution in series
    with the spatial one starts as the identity, one beside it as zero. So the network does to a still clip what the
    image network does to its frame, except through layers that the latter lacks.

    Args:
        network: The video network; its own state stays as it is.
        image: State of torchvision's ResNet.
        image_name: Says from which module of the image network a module starts, ``None`` for none.
        stems: Names of the first convolutions; kernels for other channels are averaged over them.

    Returns:
        The whole state of the network, and a sentence on each stem that was averaged.

    Raises:
        ValueError: If the image network is of another depth or width.
    """
    state = dict(network.state_dict())
    used: set[str] = set()
    missing: list[str] = []
    notes: list[str] = []

    def source(key: str) -> Tensor | None:
        used.add(key)
        if key not in image:
            missing.append(key)
        return image.get(key)

    for name, module in network.named_modules():
        counterpart = image_name(name)
        if isinstance(module, nn.Conv3d) and name.endswith("_t"):
            block = network.get_submodule(name.rpartition(".")[0])
            state[f"{name}.weight"] = _start_in_time(module.weight, identity=bool(block.in_series))
        elif counterpart is None:
            continue
        elif isinstance(module, nn.Conv3d):
            kernel = source(f"{counterpart}.weight")
            if kernel is not None:
                if name in stems:
                    kernel = _fitting_stem(name, kernel, module.in_channels, notes)
                state[f"{name}.weight"] = _middle_tap(kernel, module.weight)
        elif isinstance(module, _BatchNorm):
            for part in ("weight", "bias", "running_mean", "running_var"):
                value = source(f"{counterpart}.{part}")
                if value is not None:
                    state[f"{name}.{part}"] = value
    left = {key for key in image if not key.startswith(_CLASSIFIER) and not key.endswith("num_batches_tracked")} - used
    _check(missing, left, _different(state, network.state_dict()))
    return state, notes


def fitted(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, heads: Collection[str], stems: Collection[str]
) -> tuple[StateDict, list[str]]:
    """Make a state dictionary fit a network that differs in its classes or in the channels of its clips.

    Args:
        state: The state to take over.
        own: The state of the network.
        heads: Names of the classifiers; one for another number of classes is replaced by the network's own.
        stems: Names of the first convolutions; kernels for other channels are averaged over them.

    Returns:
        The whole state, and a sentence on each thing that was changed.

    Raises:
        ValueError: If keys are missing or left over, or shapes differ.
    """
    state, notes = dict(state), []
    for key in own:
        # A BatchNorm that was frozen by the release is saved without its counter.
        if key.endswith("num_batches_tracked") and key not in state:
            state[key] = own[key]
    for head in heads:
        keys = [f"{head}.weight", f"{head}.bias"]
        count, wanted = (len(values.get(keys[1], ())) for values in (state, own))
        if keys[0] in state and count not in (0, wanted):
            notes.append(f"`{head}` starts anew: the weights are for {count} classes, the network for {wanted}.")
            state |= {key: own[key] for key in keys}
    for stem in stems:
        key = f"{stem}.weight"
        if key in state:
            state[key] = _fitting_stem(stem, state[key], own[key].shape[1], notes)
    _check(own.keys() - state.keys(), state.keys() - own.keys(), _different(state, own))
    return state, notes


def _fitting_stem(name: str, kernel: Tensor, num_channels: int, notes: list[str]) -> Tensor:
    """Average a kernel over its input channels, and note it, unless it has `num_channels` of them."""
    if kernel.ndim < 2 or kernel.shape[1] == num_channels:
        return kernel
    count = kernel.shape[1]
    notes.append(f"`{name}` is averaged: the weights are for {count} channels, the network for {num_channels}.")
    mean = kernel.mean(dim=1, keepdim=True)
    return mean.expand(-1, num_channels, *kernel.shape[2:]).clone()


def _middle_tap(kernel: Tensor, own: Tensor) -> Tensor:
    """Put a 2D kernel ``(Co, Ci, h, w)`` into the middle in time of one of shape ``(≥Co, ≥Ci, t, h, w)``.

    Further input channels start at zero. Further output channels keep their random start: what follows starts by
    ignoring them, and with zeros on both sides neither would ever learn.
    """
    num_out, num_in = kernel.shape[:2]
    if kernel.ndim != 4 or kernel.shape[2:] != own.shape[3:] or num_out > own.shape[0] or num_in > own.shape[1]:
        return kernel  # of another network, which the check of shapes will tell
    new = own.detach().clone()
    new[:num_out] = 0
    new[:num_out, :num_in, own.shape[2] // 2] = kernel
    return new


def _start_in_time(own: Tensor, *, identity: bool) -> Tensor:
    """Return a kernel ``(Co, Ci, 3, 1, 1)`` that passes on the first Co channels, or nothing."""
    new = torch.zeros_like(own)
    if identity:
        count = min(own.shape[:2])
        new[range(count), range(count), 1] = 1
    return new


def _different(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} {tuple(value.shape)} in place of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]


def _check(missing: Collection[str], left: Collection[str], different: Collection[str]) -> None:
    found = {"missing": missing, "left over": left, "of another shape": different}
    if any(found.values()):
        parts = [f"{len(keys)} {what} ({_named(keys)})" for what, keys in found.items() if keys]
        raise ValueError(f"`weights` must be those of this network, got a file with keys {'; '.join(parts)}.")


def _named(keys: Collection[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:_NUM_NAMED]) + (", …" if len(keys) > _NUM_NAMED else "")


def _described(value: Any) -> str:
    return f"one with {_named([str(key) for key in value])}" if isinstance(value, Mapping) else type(value).__name__
