"""Weights from elsewhere: image networks, the authors' checkpoints, our own."""

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import get_model as image_model
from torchvision.models import get_model_weights

from lightning_opplan import VideoClassifier, get_model
from tests.helpers.networks import ONE_EACH, clips_for, shaken, shaken_model


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for backbone in ("resnet18", "resnet50"):
        files[backbone] = str(folder / f"{backbone}.pth")
        torch.save(shaken(image_model(backbone)).state_dict(), files[backbone])
    return files


def image_features(file, images, *, full_resolution=False):
    backbone = "resnet50" if "resnet50" in file else "resnet18"
    network = image_model(backbone)
    network.load_state_dict(torch.load(file))
    network.fc = nn.Identity()
    if full_resolution:
        for module in network.layer4[0].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return network.eval()(images)


def classifier_inputs(network, clips):
    """What each classifier sees."""
    seen = []
    for head in network.heads:
        network.get_submodule(head).register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    network(clips)
    return seen


FAMILIES = ("p3d", "g_p3d", "dg_p3d", "i3d", "r2plus1d", "lgd_p3d")
INFLATED = [(f"{family}_{backbone}", backbone) for family in FAMILIES for backbone in ("resnet18", "resnet50")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [*INFLATED, ("slowfast_resnet50", "resnet50")])
def test_inflated_network_sees_a_still_clip_like_the_image_network(image_files, name, backbone):
    network = get_model(name, num_classes=5, weights=image_files[backbone]).eval()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    clips = images[:, :, None].expand(-1, -1, 16, -1, -1)
    with torch.no_grad():
        features = classifier_inputs(network, clips)
        expected = image_features(image_files[backbone], images)
        if name.startswith("slowfast"):
            features = [features[0][:, :2048]]  # of the slow pathway; the fast one has no image network
        torch.testing.assert_close(features[0], expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
        if name.startswith("dg"):
            expected = image_features(image_files[backbone], images, full_resolution=True)
            torch.testing.assert_close(features[1], expected, rtol=1e-3, atol=1e-3 * float(expected.std()))


@pytest.mark.slow
def test_channels_without_image_weights_learn(image_files):
    """Those between the two convolutions of R(2+1)D, of which there are more than in the image network."""
    network = get_model("r2plus1d_resnet18", num_classes=5, dropout=0.0, weights=image_files["resnet18"])
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    block = network.layer2[1]
    before = block.conv1.weight.clone(), block.conv1_t.weight.clone()
    for _ in range(2):  # what stands before a zero weight moves a step later
        optimizer.zero_grad()
        network(clips_for("r2plus1d_resnet18")).logsumexp(1).sum().backward()
        optimizer.step()
    assert (block.conv1.weight != before[0]).flatten(1).any(1).all()
    assert (block.conv1_t.weight != before[1]).transpose(0, 1).flatten(1).any(1).all()


def test_classifiers_start_at_random_and_the_log_says_so(image_files, caplog):
    with caplog.at_level("INFO"):
        network = get_model("dg_p3d_resnet18", num_classes=1000, weights=image_files["resnet18"])
    assert not torch.equal(network.fc.weight, torch.load(image_files["resnet18"])["fc.weight"])
    assert "Started from an image network; fc and fc_dual start at random." in caplog.text


def test_stem_for_flow_is_the_average_over_colours(image_files, caplog):
    with caplog.at_level("INFO"):
        network = get_model("p3d_resnet18", num_classes=5, in_channels=2, weights=image_files["resnet18"])
    assert "`conv1` is averaged: the weights are for 3 channels, the network for 2." in caplog.text
    kernel = network.conv1.weight
    mean = torch.load(image_files["resnet18"])["conv1.weight"].mean(1)
    assert torch.equal(kernel[:, 0, 2], mean)
    assert torch.equal(kernel[:, 1, 2], mean)
    assert not kernel[:, :, [0, 1, 3]].any()


def test_image_network_of_another_depth_is_refused(image_files):
    with pytest.raises(ValueError, match=r"got a file with keys \d+ missing \(layer1.0.bn3.bias, .*of another"):
        get_model("p3d_resnet50", num_classes=5, weights=image_files["resnet18"])
    with pytest.raises(ValueError, match=r"\d+ left over \(layer1.0.bn3.bias, "):
        get_model("p3d_resnet18", num_classes=5, weights=image_files["resnet50"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_imagenet_weights_come_from_the_cache_of_torchvision(image_files, hub):
    url = get_model_weights("resnet18")["IMAGENET1K_V1"].url
    state = torch.load(image_files["resnet18"])
    torch.save(state, hub / url.rpartition("/")[2])
    network = get_model("g_p3d_resnet18", num_classes=5, weights="imagenet")
    assert torch.equal(network.layer1[0].conv1.weight[:, :, 0], state["layer1.0.conv1.weight"])


@pytest.mark.usefixtures("hub")
def test_missing_network_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(RuntimeError, match="could not be downloaded from https://.*no route.* give its path as"):
        get_model("i3d_resnet18", num_classes=5, weights="imagenet")


def test_network_without_an_image_network_is_refused():
    with pytest.raises(
        ValueError, match="must be the path of a file, got 'imagenet': torchvision has no such network"
    ):
        get_model("dg_p3d_tiny", num_classes=5, weights="imagenet")


RELEASED = [
    "p3d_resnet18",
    "g_p3d_resnet50",
    "dg_p3d_resnet50",
    "i3d_resnet18",
    "r2plus1d_resnet50",
    "lgd_p3d_resnet50",
]


@pytest.mark.parametrize("name", RELEASED)
def test_checkpoint_of_the_authors_is_read(tmp_path, name):
    source = shaken_model(name)
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    frozen = "module.layer1.0.bn1.num_batches_tracked"  # missing where the release froze the layer
    del state[frozen]
    torch.save({"opt": {"net_name": name}, "model": state, "epoch": 3}, tmp_path / "current.pth")
    network = get_model(name, num_classes=5, depths=ONE_EACH, weights=str(tmp_path / "current.pth"))
    for key, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.slow
def test_keys_are_those_of_the_release():
    keys = set(get_model("dg_p3d_resnet50", num_classes=2).state_dict())
    assert {
        "conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv2_t.weight",
        "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias", "layer3.5.fc1.weight", "layer3.5.fc2.bias",
        "layer4_dual.2.conv3.weight", "fc.weight", "fc_dual.bias",
    } <= keys  # fmt: skip
    keys = set(get_model("lgd_p3d_resnet18", num_classes=2).state_dict())
    assert {"layer1.0.conv1_t.weight", "layer2.1.conv2_t.weight", "layer4.1.fc6.bias", "fc_g.weight"} <= keys
    assert not any("_t." in key for key in get_model("i3d_resnet18", num_classes=2).state_dict())


def test_classifiers_for_other_classes_start_anew_and_the_log_says_so(caplog):
    source, network = shaken_model("dg_p3d_tiny", num_classes=400), shaken_model("dg_p3d_tiny", num_classes=101)
    before = network.fc.weight.clone()
    with caplog.at_level("INFO"):
        network.load_release_weights(source.state_dict())
    assert torch.equal(network.fc.weight, before)
    assert torch.equal(network.conv1.weight, source.conv1.weight)
    for head in ("fc", "fc_dual"):
        assert f"`{head}` starts anew: the weights are for 400 classes, the network for 101." in caplog.text


def test_stem_for_flow_is_averaged_and_the_log_says_so(caplog):
    source, network = shaken_model("dg_p3d_tiny"), shaken_model("dg_p3d_tiny", in_channels=2)
    with caplog.at_level("INFO"):
        network.load_release_weights(source.state_dict())
    torch.testing.assert_close(
        network.conv1.weight, source.conv1.weight.mean(1, keepdim=True).expand(-1, 2, -1, -1, -1)
    )
    assert "`conv1` is averaged: the weights are for 3 channels, the network for 2." in caplog.text


def test_keys_missing_and_left_over_are_named():
    network, source = shaken_model("dg_p3d_tiny"), shaken_model("p3d_resnet18")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = shaken_model("dg_p3d_tiny").state_dict()
    del state["layer1.0.fc1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["layer2.0.bn1.bias"] = torch.zeros(7)
    said = (
        r"1 missing \(layer1.0.fc1.weight\); 1 left over \(layer9.weight\); "
        r"1 of another shape \(layer2.0.bn1.bias \(7,\) in place of \(16,\)\)"
    )
    with pytest.raises(ValueError, match=said):
        network.load_release_weights(state)
    with pytest.raises(ValueError, match=r"left over \(layer1.0.conv1_t.weight, .*, …\)"):
        network.load_release_weights(source.state_dict())
    parallel = {f"module.{key}": value for key, value in shaken_model("dg_p3d_tiny").state_dict().items()}
    with pytest.raises(ValueError, match=r"1 left over \(extra.weight\)"):
        network.load_release_weights({**parallel, "extra.weight": torch.zeros(1)})
    state = shaken_model("dg_p3d_tiny", num_classes=7).state_dict()
    del state["fc.weight"]
    with pytest.raises(ValueError, match=r"1 missing \(fc.weight\); 1 of another shape \(fc.bias"):
        network.load_release_weights(state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Unsafe:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a name of weights or the path of a file, got .* which does not exist"),
        (
            b"no tensors",
            "a file of tensors that loads with `weights_only=True`, .* damaged or of another kind.",
        ),
        (
            b"h\x01aaaa",
            "a file of tensors that loads with `weights_only=True`, .* damaged or of another kind.",
        ),
        (
            Unsafe(),
            "a file of tensors that loads with `weights_only=True`, .* object of tests.models.*Unsafe.",
        ),
        ({"epoch": 3}, "must hold a state dictionary, .* got one with epoch"),
        ([1, 2], "must hold a state dictionary, .* got list"),
    ],
    ids=["missing", "garbage", "more_garbage", "objects", "no_state", "list"],
)
def test_wrong_file_is_refused(tmp_path, content, message):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        get_model("dg_p3d_tiny", num_classes=5, weights=str(file))


def test_checkpoint_of_a_classifier_is_read(tmp_path):
    source = VideoClassifier("dg_p3d_tiny", 5)
    shaken(source.network)
    torch.save({"state_dict": {**source.state_dict(), "other": torch.zeros(1)}}, tmp_path / "last.ckpt")
    module = VideoClassifier("dg_p3d_tiny", 5, weights=str(tmp_path / "last.ckpt"))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), source.parameters(), strict=True))
