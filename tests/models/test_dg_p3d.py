import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lightning_opplan.models import get_model


@pytest.fixture(scope="module")
def resnet50():
    with torch.device("meta"):
        return get_model("dg_p3d_resnet50", num_classes=400)


def test_parameters_equal_the_published_count(resnet50):
    assert sum(parameter.numel() for parameter in resnet50.parameters()) == 50_382_288


@pytest.mark.parametrize(
    ("frames", "size", "gmacs"), [(16, 224, 23.63), (64, 224, 94.49), (64, 256, 123.4)], ids=["short", "long", "test"]
)
def test_operations_equal_the_published_count(resnet50, frames, size, gmacs):
    with FlopCounterMode(display=False) as counter:
        resnet50(torch.empty(1, 3, frames, size, size, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=2e-3)


def test_shapes_are_those_of_figure_3(resnet50):
    shapes = {}
    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4", "frame_pool", "layer4_dual"):
        module = resnet50.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    scores = resnet50.forward_heads(torch.empty(2, 3, 16, 224, 224, device="meta"))
    assert shapes == {
        "maxpool": (64, 4, 56, 56),
        "layer1": (256, 4, 56, 56),
        "layer2": (512, 4, 28, 28),
        "layer3": (1024, 4, 14, 14),
        "layer4": (2048, 4, 7, 7),
        "frame_pool": (1024, 1, 14, 14),
        "layer4_dual": (2048, 1, 14, 14),
    }
    assert [tuple(head.shape) for head in scores] == [(2, 400), (2, 400)]


def reference(network, clips):
    """The tiny network in plain functions, written from the description of Figure 3."""
    state = network.state_dict()

    def conv(x, name, stride=1, padding=0):
        return functional.conv3d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(x, name):
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *values)

    def block(x, name, kind, stride):
        s = (1, stride, stride)
        y = functional.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
        space = lambda z: conv(z, f"{name}.conv2", s, (0, 1, 1))  # noqa: E731
        if kind == "A":
            y = functional.relu(norm(conv(space(y), f"{name}.conv2_t", 1, (1, 0, 0)), f"{name}.bn2"))
        elif kind == "B":
            y = functional.relu(norm(space(y) + conv(y, f"{name}.conv2_t", s, (1, 0, 0)), f"{name}.bn2"))
        else:
            y = functional.relu(norm(space(y), f"{name}.bn2"))
            y = functional.relu(y + conv(y, f"{name}.conv2_t", 1, (1, 0, 0)))
        y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
        pooled = functional.relu(
            functional.linear(y.mean((2, 3, 4)), state[f"{name}.fc1.weight"], state[f"{name}.fc1.bias"])
        )
        y = (
            y
            + functional.linear(pooled, state[f"{name}.fc2.weight"], state[f"{name}.fc2.bias"])[..., None, None, None]
        )
        if f"{name}.downsample.0.weight" in state:
            x = norm(conv(x, f"{name}.downsample.0", s), f"{name}.downsample.1")
        return functional.relu(y + x)

    x = functional.relu(norm(conv(clips, "conv1", (4, 2, 2), (0, 2, 2)), "bn1"))
    x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for name, kind, stride in [("layer1.0", "A", 1), ("layer2.0", "B", 2), ("layer3.0", "C", 2)]:
        x = block(x, name, kind, stride)
    temporal = block(x, "layer4.0", "A", 2).mean((2, 3, 4))
    spatial = block(functional.max_pool3d(x, (4, 1, 1), (4, 1, 1)), "layer4_dual.0", "A", 1).mean((2, 3, 4))
    heads = [
        functional.linear(features, state[f"{name}.weight"], state[f"{name}.bias"])
        for features, name in [(temporal, "fc"), (spatial, "fc_dual")]
    ]
    return (heads[0] + heads[1]) / 2


def test_scores_equal_an_independent_reference():
    torch.manual_seed(0)
    network = get_model("dg_p3d_tiny", num_classes=5).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    clips = torch.randn(2, 3, 20, 36, 32)
    torch.testing.assert_close(network(clips), reference(network, clips), rtol=1e-4, atol=1e-5)


def test_every_parameter_receives_a_gradient():
    network = get_model("dg_p3d_tiny", num_classes=5)
    # The last layer of a global context starts at zero, which stops the gradient of the one before.
    for name, parameter in network.named_parameters():
        if ".fc2." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    network(torch.randn(2, 3, 16, 32, 32)).logsumexp(1).sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


def test_global_context_starts_without_effect():
    network = get_model("dg_p3d_tiny", num_classes=5)
    assert all(not parameter.any() for name, parameter in network.named_parameters() if ".fc2." in name)


def test_small_variant_is_small():
    network = get_model("dg_p3d_tiny", num_classes=8)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.3e6, rel=0.15)


def test_dropout_and_channels_are_options():
    network = get_model("dg_p3d_tiny", num_classes=3, dropout=0.7, in_channels=2)
    assert network.dropout.p == 0.7
    assert network(torch.randn(1, 2, 16, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize("shape", [(1, 3, 15, 32, 32), (3, 16, 32, 32)], ids=["frames", "dimensions"])
def test_clips_that_are_too_short_are_refused(shape):
    with pytest.raises(ValueError, match=r"`clips` must have the shape \(B, C, T, H, W\) with T ≥ 16 frames"):
        get_model("dg_p3d_tiny", num_classes=3)(torch.zeros(shape))
