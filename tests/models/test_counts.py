"""Parameters and operations, against published counts."""

import pytest
import torch
from torchvision.models import get_model as image_model

from tests.helpers.networks import gmacs, num_parameters, on_meta


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "short", "long", "test"),
    [
        ("dg_p3d_resnet50", 50_382_288, 23.63, 94.49, 123.4),
        ("dg_p3d_resnet101", 74_963_472, 41.10, 164.4, 214.7),
        ("p3d_resnet50", 28_128_272, 20.23, 80.92, 105.7),
        ("lgd_p3d_resnet50", 36_190_640, 20.24, 80.93, 105.7),
        ("i3d_resnet50", 46_990_352, 32.56, 130.2, 170.1),
        ("r2plus1d_resnet50", 46_990_352, 32.56, 130.2, 170.1),
    ],
    ids=["dg_p3d_50", "dg_p3d_101", "p3d", "lgd_p3d", "i3d", "r2plus1d"],
)
def test_counts_are_those_of_the_paper(name, parameters, short, long, test):
    network = on_meta(name)
    assert num_parameters(network) == parameters
    for frames, size, expected in [(16, 224, short), (64, 224, long), (64, 256, test)]:
        assert gmacs(network, frames, size) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "options", "frames", "parameters", "expected"),
    [
        # Feichtenhofer et al., Tables 2 and 4; millions of parameters from the authors' list of models
        ("slowfast_resnet50", {"alpha": 8}, 32, 34.48, 36.1),
        ("slowfast_resnet50", {}, 32, 34.57, 65.7),
        ("slowfast_resnet101", {}, 32, 53.77, 106),
        ("slowfast_resnet101", {}, 64, 53.77, 213),
    ],
    ids=["50_4x16", "50_8x8", "101_8x8", "101_16x8"],
)
def test_counts_of_slowfast_are_the_published_ones(name, options, frames, parameters, expected):
    network = on_meta(name, **options)
    assert num_parameters(network) / 1e6 == pytest.approx(parameters, abs=0.005)
    assert gmacs(network, frames, 256) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("backbone", [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)])
def test_spatial_part_has_the_parameters_of_the_image_network(backbone):
    with torch.device("meta"):
        image = image_model(backbone, num_classes=400)
    network = on_meta(f"p3d_{backbone}")
    temporal = sum(p.numel() for name, p in network.named_parameters() if "_t." in name)
    three_more_frames_in_the_stem = 3 * image.conv1.weight.numel()
    assert num_parameters(network) - temporal - three_more_frames_in_the_stem == num_parameters(image)
