"""Which parameters an optimizer gets, at which rate and with which decay."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from torch import nn

from lightning_opplan.messages import checked_choice

__all__ = ["Decayed", "parameter_groups"]

Decayed = Literal["all", "weights"]
"""What weight decay is for: everything, or weights alone, without norms, biases, tokens and embeddings of places."""


_ADDED: Final = (
    "token", "tokens", "embed", "embedding", "embeddings", "bias", "biases", "table", "pos", "rel_pos_h", "rel_pos_w",
    "rel_pos_t",
)  # fmt: skip
"""Ends of the names of what is learned in the place of an input."""


def parameter_groups(
    parameters: Mapping[str, nn.Parameter],
    numbers: Mapping[str, int],
    *,
    learning_rate: float,
    weight_decay: float,
    decayed: Decayed = "all",
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Group parameters for an optimizer.

    Args:
        parameters: Those that are trained, by name.
        numbers: The stage of each, from 0 at the stem; that of the head is the highest.
        learning_rate: Rate of the head.
        weight_decay: Weight decay.
        decayed: What it is for. Norms and biases, and other vectors, are left out, and whatever the
            network learns in the place of an input: tokens and embeddings of places.
        layer_decay: What the rate is multiplied by from each stage to the one below it.

    Returns:
        One group if all have the same rate and decay, else one for each pair of them, in the order of the parameters.

    Raises:
        ValueError: If `decayed` is unknown, or `layer_decay` not above 0 and at most 1.

    References:
        Clark et al., "ELECTRA", ICLR 2020, and Bao et al., "BEiT", ICLR 2022 (layer-wise rate decay).
    """
    checked_choice("decayed", decayed, get_args(Decayed))
    if not 0 < layer_decay <= 1:
        raise ValueError(f"`layer_decay` must be a factor above 0 and at most 1, got {layer_decay!r}.")
    top = max(numbers.values(), default=0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        rate = learning_rate * layer_decay ** (top - numbers.get(name, top))
        decay = weight_decay if decayed == "all" or _is_weight(name, parameter) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is multiplied with features; tokens and embeddings of places are added, as biases are."""
    last = name.rpartition(".")[2]
    is_vector = parameter.numel() == max(parameter.shape, default=1)
    return not is_vector and not last.endswith(_ADDED)
