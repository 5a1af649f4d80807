"""A network of another library, in the form that those of the package have."""

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from functools import cache, partial
from typing import Any, Self, cast

import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from torch import Tensor, nn
from typing_extensions import override

from lightning_opplan.inputs import Preprocessing, Shape, described
from lightning_opplan.models.layers import checkpointed
from lightning_opplan.models.network import ScoringNetwork, Takes
from lightning_opplan.models.weights import fitted, unwrapped

__all__ = ["LibraryNetwork", "checkpoint_blocks", "stages_around_trunk"]

Score = Callable[[nn.Module, Tensor], Tensor]
_INNER = "inner."
_MIN_TRUNK = 3  # stages of the shortest trunk


class LibraryNetwork(ScoringNetwork):
    """A network that another library has made; its scores are the library's own.

    Args:
        inner: The library's module.
        name: What it is called here, such as ``torchvision/mvit_v2_s``.
        takes: What it scores.
        preprocessing: What its inputs were meant to be.
        classifiers: Names of the classifiers in the library's module.
        stages: What lies how deep there, see `ScoringNetwork.stages`.
        fixed: The only shape that it takes, or ``None``.
        hint: A sentence on how another shape could be had.
        score: Calls the module on clips ``(B, C, T, H, W)`` or images ``(B, C, H, W)``.
        options: See `ScoringNetwork`.
    """

    preprocessing: Preprocessing

    def __init__(
        self,
        inner: nn.Module,
        *,
        name: str,
        takes: Takes,
        preprocessing: Preprocessing,
        classifiers: tuple[str, ...],
        stages: tuple[tuple[str, ...], ...],
        fixed: Shape | None = None,
        hint: str = "",
        score: Score | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.inner = inner
        self.name, self.takes = name, takes
        self.preprocessing = preprocessing
        self.classifiers, self.fixed, self.hint = classifiers, fixed, hint
        self.options = dict(options or {})
        self._score, self._stages = score, stages

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The stages by their names in the library's module."""
        return self._stages

    @property
    @override
    def stages(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(_INNER + part for part in parts) for parts in self._stages)

    @override
    def forward_heads(self, inputs: Tensor) -> tuple[Tensor, ...]:
        scores: Tensor = self.inner(inputs) if self._score is None else self._score(self.inner, inputs)
        return (scores.to(torch.promote_types(scores.dtype, torch.float32)),)

    @override
    def check_shape(self, shape: Shape) -> None:
        """See `ScoringNetwork`; whatever the library does not say is tried out, without memory or time for it."""
        num_dims = 4 if self.takes == "clips" else 3
        if len(shape) != num_dims:
            raise ValueError(f"{self.name!r} takes {self.takes}, got {described(shape)}.")
        if self.fixed is not None:
            if shape != self.fixed:
                raise ValueError(f"{self.name!r} takes {_said(self.fixed)} and nothing else. {self.hint}".rstrip())
            return
        try:
            with torch.no_grad():
                _on_meta(self).eval()(torch.empty((2, *shape), device="meta"))
        except Exception as error:  # libraries refuse with errors of any kind
            known = self.preprocessing
            length = () if known.clip_length is None else (known.clip_length,)
            made = _said((shape[0], *length, known.crop_size, known.crop_size))
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.name!r} does not take {_said(shape)} ({reason}); it is made for {made}. {self.hint}".rstrip()
            ) from error

    @override
    def load_release_weights(self, state: Mapping[str, Any]) -> None:
        """Take over weights under the library's own names, or from a checkpoint of this package.

        Raises:
            ValueError: If keys are missing or left over, or shapes differ; nothing has been changed then.
        """
        given = {key.removeprefix(_INNER): value for key, value in unwrapped(state).items()}
        fitting, notes = fitted(given, self.inner.state_dict(), heads=self.classifiers, stems=())
        self.inner.load_state_dict(fitting)
        for note in notes:
            rank_zero_info(note)

    @override
    def to_channels_last(self) -> Self:
        """See `ScoringNetwork`; kernels of one position are the same in both formats."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) and max(module.kernel_size) > 1:
                is_image = isinstance(module, nn.Conv2d)
                module.to(memory_format=torch.channels_last if is_image else torch.channels_last_3d)
        return self


def _said(shape: Shape) -> str:
    return f"{'clips' if len(shape) == 4 else 'images'} of {described(shape)}"


def _on_meta(network: LibraryNetwork) -> LibraryNetwork:
    """Copy a network without the memory for its weights."""
    memo: dict[int, Any] = {
        id(each): nn.Parameter(torch.empty_like(each, device="meta"), requires_grad=False)
        for each in network.parameters()
    }
    memo |= {id(each): torch.empty_like(each, device="meta") for each in network.buffers()}
    return deepcopy(network, memo)


def stages_around_trunk(inner: nn.Module, classifiers: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Divide a network into its stem and the parts of its trunk; what follows the trunk is left to the head.

    The trunk of a ResNet are its layers 1 to 4, that of others the list of modules with most parameters, and if there
    is none, all that there is.
    """
    children = [name for name, child in inner.named_children() if any(True for _ in child.parameters())]
    if "layer1" in children:
        parts = [name for name in children if name.startswith("layer")]
        return _with_stem(inner, parts)
    lists = [
        (name, module)
        for name, module in inner.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        and len(module) >= _MIN_TRUNK
        # Nor what ends with a classifier, such as the three layers of VGG.
        and not any(f"{classifier}.".startswith(f"{name}.") for classifier in classifiers)
    ]
    if lists:
        name, trunk = max(lists, key=lambda item: sum(each.numel() for each in item[1].parameters()))
        parts = [f"{name}.{part}" for part, module in trunk.named_children() if any(True for _ in module.parameters())]
        return _with_stem(inner, parts)
    heads = tuple(classifier.partition(".")[0] for classifier in classifiers)
    return tuple((name,) for name in children if name not in heads)


def _with_stem(inner: nn.Module, parts: list[str]) -> tuple[tuple[str, ...], ...]:
    """The parts, and before them all parameters that the network has before the first."""
    stem = []
    for name, _ in inner.named_parameters():
        if name.startswith(f"{parts[0]}."):
            break
        stem.append(name)
    own = tuple((part,) for part in parts)
    return (tuple(stem), *own) if stem else own


class _Checkpointing:
    """Put before the class of a block: it keeps only what comes in for the backward pass."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        block, run = cast(nn.Module, self), partial(super().forward, **options)  # type: ignore[misc]
        if not block.training or not torch.is_grad_enabled():
            return run(*inputs)
        return checkpointed(block, *inputs, run=run, draws=True)


@cache
def _checkpointing(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Checkpointing, kind), {})


def checkpoint_blocks(inner: nn.Module, parts: tuple[tuple[str, ...], ...]) -> None:
    """Let the parts of a trunk compute their activations again in the backward pass; names stay as they are."""
    for names in parts:
        for name in names:
            block = dict(inner.named_modules()).get(name)
            if block is not None and any(True for _ in block.children()):
                block.__class__ = _checkpointing(cast(Any, type(block)))
