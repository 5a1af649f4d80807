"""What a network costs: parameters, and multiplications with additions for a clip."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_opplan.models.network import ScoringNetwork
from lightning_opplan.models.registry import get_model

__all__ = ["NetworkCost", "network_cost"]


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What a network costs.

    Attributes:
        name: Its name.
        num_parameters: Its parameters.
        gmacs: Multiplications with additions for a clip or an image, in 10⁹: what papers on video call GFLOPs.
    """

    name: str
    num_parameters: int
    gmacs: float


def network_cost(
    name: str, *, num_classes: int = 400, clip_length: int = 16, crop_size: int = 224, in_channels: int = 3
) -> NetworkCost:
    """Count a network's parameters and operations, without memory for either.

    Args:
        name: One of `list_models()`.
        num_classes: Its classes.
        clip_length: Frames of a clip; left aside for a network that takes images.
        crop_size: Its height and width in px.
        in_channels: Its channels.

    Raises:
        ValueError: If there is no such network, or it does not take such clips.
    """
    network = _built(name, num_classes, in_channels).eval()
    shape = (in_channels, *((clip_length,) if network.takes == "clips" else ()), crop_size, crop_size)
    network.check_shape(shape)
    inputs = torch.empty(1, *shape, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    # It counts a multiplication and an addition as two.
    return NetworkCost(
        name=name,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        gmacs=counter.get_total_flops() / 2e9,
    )


def _built(name: str, num_classes: int, in_channels: int) -> ScoringNetwork:
    try:
        with torch.device("meta"):
            return get_model(name, num_classes=num_classes, in_channels=in_channels)
    except RuntimeError:  # torch's word where a network looks at its weights while it is made
        return get_model(name, num_classes=num_classes, in_channels=in_channels)
