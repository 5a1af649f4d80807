"""Networks with weights that hide nothing."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from lightning_opplan import get_model

SMALL = [
    "p3d_resnet18",
    "g_p3d_resnet50",
    "dg_p3d_resnet18",
    "i3d_resnet50",
    "r2plus1d_resnet18",
    "lgd_p3d_resnet50",
    "slowfast_resnet50",
    "dg_p3d_tiny",
]
"""One network of each family, basic blocks and bottlenecks, which the tests build with one block per stage."""

QUICK = ("dg_p3d_tiny", "p3d_resnet18")

ONE_EACH = (1, 1, 1, 1)


def slow_but(names, quick=QUICK):
    """Names as parameters of a test, all marked slow but for the quick ones."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def frames_of(name):
    return 8 if name.startswith("slowfast") else 16


def clips_for(name, num=2, size=64, in_channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, in_channels, frames_of(name), size, size, generator=generator)


def shaken(network, seed=0):
    """Let every weight matter: what starts at zero, at one or with equal statistics does so no more."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
    return network


def shaken_model(name, **options):
    torch.manual_seed(0)
    return shaken(get_model(name, **{"num_classes": 5, "dropout": 0.0, "depths": ONE_EACH, **options}))


def on_meta(name, **options):
    with torch.device("meta"):
        return get_model(name, num_classes=400, **options).eval()


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def gmacs(network, frames, size):
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, frames, size, size, device="meta"))
    return counter.get_total_flops() / 2e9
