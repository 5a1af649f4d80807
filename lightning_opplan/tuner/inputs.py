"""Whether the networks of all states take what their data give, before the first epoch."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning_opplan.planning.graph import TransitionGraph
from lightning_opplan.planning.path import plain_setting
from lightning_opplan.planning.space import is_rate
from lightning_opplan.tuner.edges.recipe import Recipe
from lightning_opplan.tuner.shapes import built_model

__all__ = ["check_inputs"]


def check_inputs(recipe: Recipe, graph: TransitionGraph) -> None:
    """Let the module of every state look at its data, where it has a method for that: ``check_data(data)``.

    Where nothing but learning rates changes, the first training looks at all that there is to see.

    Raises:
        ValueError: If some states are refused; it says all of them, and why.
    """
    keys = {key for setting in graph.settings.values() for key in setting}
    # Building a model may take long, so first it is seen whether there is anything to look at, or anybody to look.
    if all(map(is_rate, keys)) or (not any(key.endswith("class_path") for key in keys) and _cannot_look(recipe)):
        return
    models: dict[str, Any] = {}
    data: dict[str, Any] = {}
    refused: dict[str, list[str]] = {}
    for state in graph.states[1:]:
        setting = plain_setting(graph.settings[state])
        of_model = {key: value for key, value in setting.items() if key.startswith("model.")}
        of_data = {key: value for key, value in setting.items() if key.startswith("data.")}
        # At another rate a network takes the same.
        model_key = _key({key: value for key, value in of_model.items() if not is_rate(key)})
        data_key = _key(of_data)
        if model_key not in models:
            models[model_key] = built_model(recipe, of_model)
        check = getattr(models[model_key], "check_data", None)
        if check is None:
            return
        if data_key not in data:
            data[data_key] = recipe.build_data(of_data)
        try:
            check(data[data_key])
        except ValueError as error:
            refused.setdefault(str(error), []).append(state)
    if refused:
        said = " ".join(f"{', '.join(states)}: {reason}" for reason, states in refused.items())
        count = sum(map(len, refused.values()))
        raise ValueError(f"{count} of the {len(graph.states) - 1} states cannot be trained. {said}")


def _cannot_look(recipe: Recipe) -> bool:
    model = next(iter(recipe.code()))
    while isinstance(model, partial):
        model = model.func
    return isinstance(model, type) and not hasattr(model, "check_data")


def _key(setting: Mapping[str, Any]) -> str:
    return repr(sorted(setting.items(), key=lambda item: item[0]))
