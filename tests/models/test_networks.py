"""What holds for every network."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_opplan import FreezeBatchNorm, get_model, list_models
from tests.helpers.networks import ONE_EACH, SMALL, clips_for, shaken_model, slow_but
from tests.helpers.reference import DEPTHS, Reference, SlowFastReference
from tests.helpers.scripted import PROJECT

EACH_STRUCTURE = ["dg_p3d_resnet18", "lgd_p3d_resnet50", "i3d_resnet50", "slowfast_resnet50"]
"""Networks whose parts the others are made of."""


@pytest.mark.parametrize(
    "name", slow_but(list_models(), [name for name in list_models() if name[-3:] not in ("101", "152")])
)
def test_every_network_scores_clips(name):
    with torch.device("meta"):
        network = get_model(name, num_classes=7)
        clips = torch.empty(2, 3, 16, 64, 64)
    assert network(clips).shape == (2, 7)
    assert all(head.shape == (2, 7) for head in network.forward_heads(clips))


@pytest.mark.parametrize("depth", slow_but([18, 50], [18]))
@pytest.mark.parametrize("family", ["p3d", "g_p3d", "dg_p3d", "i3d", "r2plus1d", "lgd_p3d"])
def test_scores_equal_an_independent_reference(family, depth):
    name = f"{family}_resnet{depth}"
    network = shaken_model(name, depths=DEPTHS[depth]).eval()
    reference = Reference(family, network.state_dict(), DEPTHS[depth])
    clips = torch.randn(2, 3, 20, 70, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.scores(clips)
        torch.testing.assert_close(network(clips), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
        network.to_channels_last()
        torch.testing.assert_close(network(clips), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "alpha"), [(50, 4), (101, 8)])
def test_scores_of_slowfast_equal_an_independent_reference(depth, alpha):
    network = shaken_model(f"slowfast_resnet{depth}", alpha=alpha, depths=DEPTHS[depth]).eval()
    reference = SlowFastReference("slowfast", network.state_dict(), DEPTHS[depth])
    clips = torch.randn(2, 3, 18, 64, 70, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference.scores(clips, alpha)
        torch.testing.assert_close(network(clips), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


def test_global_path_of_lgd_is_scored_in_training_alone():
    network = shaken_model("lgd_p3d_resnet18", depths=DEPTHS[18])
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    clips = clips_for("lgd_p3d_resnet18")
    with torch.no_grad():
        reference = Reference("lgd_p3d", network.state_dict(), DEPTHS[18])
        for head, expected in zip(network.forward_heads(clips), reference.heads(clips, training=True), strict=True):
            torch.testing.assert_close(head, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
        assert len(network.eval().forward_heads(clips)) == 1


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_receives_a_gradient(name):
    network = shaken_model(name)
    torch.stack(network.forward_heads(clips_for(name))).logsumexp(2).sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


def test_shapes_are_those_of_figure_3():
    with torch.device("meta"):
        network = get_model("dg_p3d_resnet50", num_classes=400)
    shapes = {}
    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4", "frame_pool", "layer4_dual"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    scores = network.forward_heads(torch.empty(2, 3, 16, 224, 224, device="meta"))
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


@pytest.mark.parametrize("name", [*SMALL, "slowfast_resnet101"])
def test_smallest_clip_works_and_a_smaller_one_is_refused(name):
    with torch.device("meta"):
        network = get_model(name, num_classes=3)
    frames = {"dg": 16, "sl": 4}.get(name[:2], 4)
    size = 32 if name.endswith("tiny") else 64
    network(torch.empty(1, 3, frames, size, size, device="meta"))
    network(torch.empty(1, 3, frames + 3, size + 5, size + 34, device="meta"))
    said = (
        rf"`clips` must have the shape \(B, C, T, H, W\) with T ≥ {frames} frames, H, W ≥ {size} px and C = 3 channels"
    )
    shapes = [(1, 3, frames - 1, size, size), (1, 3, frames, size, size - 1), (3, frames, size, size)]
    for shape in [*shapes, (1, 2, frames, size, size)]:
        with pytest.raises(ValueError, match=said):
            network(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("name", SMALL)
def test_dropout_and_channels_are_options(name):
    network = get_model(name, num_classes=3, dropout=0.7, in_channels=2, depths=ONE_EACH).eval()
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.7]
    assert network(clips_for(name, in_channels=2)).shape == (2, 3)


@pytest.mark.parametrize("name", ["g_p3d_resnet18", "dg_p3d_tiny", "lgd_p3d_resnet18"])
def test_global_context_starts_without_effect(name):
    last = ".fc6." if name.startswith("lgd") else ".fc2."
    parameters = [p for key, p in get_model(name, num_classes=5).named_parameters() if last in key]
    assert parameters
    assert not any(parameter.any() for parameter in parameters)


@pytest.mark.parametrize("name", slow_but(SMALL))
def test_channels_last_changes_no_result(name):
    network, clips = shaken_model(name).double(), clips_for(name).double()

    def step():
        network.zero_grad()
        scores = torch.stack(network.forward_heads(clips))
        scores.logsumexp(2).mean().backward()
        return [scores.detach(), *(parameter.grad.clone() for parameter in network.parameters())]

    before = step()
    network.to_channels_last()
    for new, old in zip(step(), before, strict=True):
        assert (new - old).norm() <= 1e-6 * old.norm() + 1e-12


@pytest.mark.parametrize("name", slow_but(SMALL))
def test_activation_checkpointing_changes_no_result(name):
    results = []
    for checkpointing in (False, True):
        network = shaken_model(name, activation_checkpointing=checkpointing)
        scores = torch.stack(network.forward_heads(clips_for(name)))
        scores.logsumexp(2).mean().backward()
        results.append([scores, *network.state_dict().values(), *(p.grad for p in network.parameters())])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.compile
def test_activation_checkpointing_leaves_statistics_alone_when_compiled():
    states = []
    for checkpointing in (False, True):
        torch.compiler.reset()
        network = shaken_model("dg_p3d_tiny", activation_checkpointing=checkpointing)
        heads = torch.compile(network.forward_heads, backend="aot_eager") if checkpointing else network.forward_heads
        torch.stack(heads(clips_for("dg_p3d_tiny"))).logsumexp(2).mean().backward()
        states.append(network.state_dict())
    torch.compiler.reset()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, msg=lambda text, key=key: f"{key}: {text}")


def test_activation_checkpointing_allows_a_backward_pass_for_each_head():
    gradients = []
    for checkpointing in (False, True):
        network = shaken_model("dg_p3d_tiny", activation_checkpointing=checkpointing)
        temporal, spatial = network.forward_heads(clips_for("dg_p3d_tiny"))
        temporal.logsumexp(1).sum().backward(retain_graph=True)
        spatial.logsumexp(1).sum().backward()
        gradients.append([*network.state_dict().values(), *(p.grad for p in network.parameters())])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-4)


def test_activation_checkpointing_keeps_less():
    def kept(checkpointing):
        network = shaken_model("p3d_resnet18", depths=DEPTHS[18], activation_checkpointing=checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            network(clips_for("p3d_resnet18"))
        return sum(sizes)

    assert kept(True) < 0.6 * kept(False)


@pytest.mark.compile
@pytest.mark.parametrize("name", EACH_STRUCTURE)
def test_network_compiles_in_one_graph(name):
    torch.compiler.reset()
    network, clips = shaken_model(name).to_channels_last(), clips_for(name)
    compiled = torch.compile(network.forward_heads, fullgraph=True, dynamic=False, backend="aot_eager")
    with torch.no_grad():
        expected = torch.stack(network.forward_heads(clips))
        torch.testing.assert_close(
            torch.stack(compiled(clips)), expected, rtol=1e-3, atol=1e-3 * float(expected.std())
        )
    torch.stack(compiled(clips)).sum().backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        torch.stack(compiled(clips + 1)).sum().backward()
    torch.compiler.reset()


@pytest.mark.parametrize("name", slow_but(SMALL))
def test_network_can_be_exported(name):
    network, clips = shaken_model(name).eval().to_channels_last(), clips_for(name)
    program = torch.export.export(network, (clips,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(clips), network(clips), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", slow_but(SMALL))
def test_scores_under_autocast_are_not_rounded(name):
    network = shaken_model(name).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = network(clips_for(name))
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("name", slow_but([*SMALL, "dg_p3d_resnet50"]))
def test_all_but_the_first_batch_norm_can_be_frozen(name):
    from lightning_opplan import VideoClassifier

    module = VideoClassifier(name, 3)
    callback = FreezeBatchNorm()
    callback.setup(None, module, "fit")
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    assert layers[0] is module.network.get_submodule("slow.bn1" if name.startswith("slowfast") else "bn1")
    free = [layer for layer in layers if layer.weight.requires_grad or layer.bias.requires_grad]
    assert free == layers[:1]
    others = [p for layer in module.modules() if not isinstance(layer, _BatchNorm) for p in layer.parameters(False)]
    assert all(parameter.requires_grad for parameter in others)
    callback.on_train_start(None, module)
    callback.on_train_batch_start(None, module, None, 0)
    before = [layer.running_mean.clone() for layer in layers]
    module.network(clips_for(name))
    changed = [not torch.equal(old, layer.running_mean) for old, layer in zip(before, layers, strict=True)]
    assert changed == [True] + [False] * (len(layers) - 1)


@pytest.mark.process
def test_two_processes_leave_no_parameter_unused(tmp_path):
    """Under DDP, which fails in the second step if a parameter had no gradient in the first."""
    command = [sys.executable, "-W", "error::UserWarning", "-m", "tests.helpers.two_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), tmp_path / "rendezvous", *EACH_STRUCTURE],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said.decode()[-3000:]
            assert b"strides do not match" not in said
    finally:
        for process in processes:
            process.kill()
