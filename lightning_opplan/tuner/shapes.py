"""Whether the weights of every state fit those that they are handed to, before the first epoch."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_opplan.planning.graph import START, TransitionGraph
from lightning_opplan.planning.path import plain_setting
from lightning_opplan.planning.space import is_rate
from lightning_opplan.tuner.edges.recipe import Recipe

__all__ = ["built_model", "check_shapes"]

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(recipe: Recipe, graph: TransitionGraph) -> None:
    """Make sure that weights fit from state to state, where settings change more of the model than a learning rate.

    Models are built without memory for their weights where that can be. One that adapts weights itself, by
    ``on_load_checkpoint``, or learns its shapes from the data, is left alone.

    Raises:
        ValueError: At the first edge whose states have different weights.
    """
    known: dict[str, Shapes | None] = {}

    def shapes_of(state: str) -> Shapes | None:
        setting = {
            key: value
            for key, value in plain_setting(graph.settings[state]).items()
            if key.startswith("model.") and not is_rate(key)
        }
        key = repr(sorted(setting.items(), key=lambda item: item[0]))
        if key not in known:
            known[key] = _shapes(built_model(recipe, setting))
        return known[key]

    keys = {key for setting in graph.settings.values() for key in setting}
    if not any(key.startswith("model.") and not is_rate(key) for key in keys):
        return
    for parent, child in graph.edges:
        if parent == START:
            continue
        before, after = shapes_of(parent), shapes_of(child)
        if before is None or after is None or before == after:
            continue
        name = next(name for name in [*before, *after] if before.get(name) != after.get(name))
        raise ValueError(
            f"The weights of one state must fit the model of the next, but {name!r} is {_said(before.get(name))} in "
            f"{parent!r} and {_said(after.get(name))} in {child!r}. A setting must not change the shape of the "
            "network."
        )


def built_model(recipe: Recipe, setting: Mapping[str, Any]) -> LightningModule:
    """Make a model, without memory for its weights where that can be."""
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = recipe.build_model(setting)
            model.configure_model()
            return model
    except Exception:  # it needs its weights while it is made
        model = recipe.build_model(setting)
        model.configure_model()
        return model


def _shapes(model: LightningModule) -> Shapes | None:
    tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    if any(map(is_lazy, tensors.values())) or not model.strict_loading or is_overridden("on_load_checkpoint", model):
        return None
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _said(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else f"of shape {shape}"
