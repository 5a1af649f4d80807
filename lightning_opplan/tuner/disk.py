"""The disk space of a search: said beforehand, and kept by deleting what can no longer be chosen."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_opplan.callbacks.knee_stopping import MAX_CHECKPOINTS
from lightning_opplan.planning.cost import in_thousands
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.edges.recipe import Recipe

__all__ = ["disk_sentence", "peak_disk", "weights_size"]

_STATES_OF_OPTIMIZER: Final = 2  # per weight, at most: Adam's two moments; SGD has one


def weights_size(recipe: Recipe, setting: Mapping[str, Any]) -> int | None:
    """Return the bytes of a model's weights, by building it; ``None`` if it learns its shapes from the data."""
    model = recipe.build_model(setting)
    model.configure_model()
    tensors = [tensor for tensor in model.state_dict().values() if isinstance(tensor, Tensor)]
    if any(is_lazy(tensor) for tensor in tensors):
        return None
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_disk(weights: int, search: Search | Halving, *, num_running: int) -> int:
    """Return the bytes that a search takes at most.

    Args:
        weights: Bytes of a model's weights.
        search: The search; it keeps the weights of the best ways into every state. Its paused edges keep their
            checkpoints.
        num_running: Edges that run at the same time; each keeps `MAX_CHECKPOINTS`, and writes one more.
    """
    checkpoint = weights * (1 + _STATES_OF_OPTIMIZER)
    running = num_running * ((MAX_CHECKPOINTS + 1) * checkpoint + weights)
    if isinstance(search, Halving):  # every arm keeps what it goes on from, and its weights
        return len(search.arms.arms) * (checkpoint + 2 * weights) + num_running * (2 * checkpoint + weights)
    num_kept = (len(search.graph.states) - 1) * search.beam
    return num_kept * weights + running + len(search.paused) * MAX_CHECKPOINTS * checkpoint


def disk_sentence(peak: int, folder: Path) -> str:
    """Say how much disk space a search takes, and whether there is as much."""
    free = shutil.disk_usage(folder).free
    sentence = f"Disk: at most {in_thousands(peak, 'B')} at a time, of {in_thousands(free, 'B')} that are free."
    return sentence if free >= peak else f"{sentence} This may not be enough."
