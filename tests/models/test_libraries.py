"""Networks of torchvision, timm and transformers: their scores are the libraries' own."""

import copy
import re

import pytest
import timm
import torch
from torch.nn import functional
from torchvision.models import get_model as torchvision_model
from torchvision.models import get_model_weights

from lightning_opplan import get_model, list_models
from lightning_opplan.models.libraries import SOURCES, known_names
from lightning_opplan.models.network import numbered, whole_modules
from tests.helpers.libraries import SMALL_BERT, transformers_model

CLIPS = torch.randn(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
TRANSFORMERS = ["transformers/timesformer", "transformers/videomae", "transformers/vivit"]


def the_library_s(name, num_classes=5):
    """A network as its library makes it, and its scores."""
    source, _, rest = name.partition("/")
    torch.manual_seed(1)
    if source == "torchvision":
        network = torchvision_model(rest, num_classes=num_classes)
    elif source == "timm":
        network = timm.create_model(rest, num_classes=num_classes)
    else:
        network = transformers_model(rest, num_classes)
    return network.eval()


def own(name, **options):
    extra = SMALL_BERT if name.startswith("transformers/") else {}
    return get_model(name, **{"num_classes": 5, **extra, **options})


def inputs_for(name):
    return IMAGES if name.startswith("timm/") or name.endswith("resnet18") else CLIPS


def scores_of(name, network, inputs):
    with torch.no_grad():
        if name.startswith("transformers/"):
            return network(pixel_values=inputs.transpose(1, 2)).logits
        return network(inputs)


EACH = [
    "torchvision/mc3_18",
    pytest.param("torchvision/swin3d_t", marks=pytest.mark.slow),
    pytest.param("torchvision/r3d_18", marks=pytest.mark.slow),
    "torchvision/resnet18",
    "timm/test_vit",
    "timm/test_resnet",
    *[pytest.param(name, marks=pytest.mark.transformers) for name in TRANSFORMERS],
]


@pytest.mark.parametrize("name", EACH)
def test_scores_equal_the_library_s_on_the_same_file_of_weights(tmp_path, name):
    network = the_library_s(name)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with torch.no_grad():
        mine = own(name, weights=str(tmp_path / "weights.pth")).eval()(inputs_for(name))
    theirs = scores_of(name, network, inputs_for(name))
    assert theirs.std() > 0.01, "the example must tell networks apart"
    assert float((mine - theirs).abs().max()) < 1e-5


@pytest.mark.slow
def test_scores_of_mvit_equal_the_library_s(tmp_path):
    network = the_library_s("torchvision/mvit_v2_s")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    clips = torch.randn(1, 3, 16, 224, 224)
    mine = own("torchvision/mvit_v2_s", weights=str(tmp_path / "weights.pth")).eval()
    with torch.no_grad():
        assert float((mine(clips) - network(clips)).abs().max()) < 1e-5


@pytest.mark.transformers
def test_a_folder_of_transformers_brings_its_configuration(tmp_path, caplog):
    network = the_library_s("transformers/videomae", 7)
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"video_processor_type": "VideoMAEVideoProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], '
        '"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}'
    )
    mine = get_model("transformers/videomae", num_classes=7, weights=str(tmp_path)).eval()
    with torch.no_grad():
        assert float((mine(CLIPS) - scores_of("transformers/videomae", network, CLIPS)).abs().max()) < 1e-5
    made_for = mine.preprocessing
    assert (made_for.mean, made_for.crop_size, made_for.short_side, made_for.clip_length) == (
        (0.1, 0.2, 0.3),
        32,
        40,
        16,
    )
    with caplog.at_level("INFO"):
        other = get_model("transformers/videomae", num_classes=3, weights=str(tmp_path))
    assert "classifier.bias, classifier.weight start anew" in caplog.text
    assert torch.equal(other.inner.fc_norm.weight, network.fc_norm.weight)
    assert mine.options["hidden_size"] == SMALL_BERT["hidden_size"]
    with pytest.raises(ValueError, match="must be those of a 'vivit', got .* which holds a 'videomae'"):
        get_model("transformers/vivit", num_classes=3, weights=str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/mc3_18",
        "torchvision/resnet18",
        "timm/test_vit",
        pytest.param(TRANSFORMERS[1], marks=pytest.mark.transformers),
    ],
)
def test_weights_for_other_classes_leave_the_classifier_as_it_was(tmp_path, caplog, name):
    source = own(name, num_classes=9)
    torch.save({"state_dict": {f"network.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "last.ckpt")
    with caplog.at_level("INFO"):
        network = own(name, weights=str(tmp_path / "last.ckpt"))
    assert "starts anew: the weights are for 9 classes, the network for 5" in caplog.text
    heads = tuple(f"inner.{head}." for head in network.classifiers)
    for key, value in network.state_dict().items():
        assert key.startswith(heads) or torch.equal(value, source.state_dict()[key])


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision_model("r2plus1d_18", num_classes=5).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="must be those of this network, got a file with keys .* missing"):
        get_model("torchvision/mc3_18", num_classes=5, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(("name", "extra"), [("mvit_v2_s", 224), ("r3d_18", 112), ("swin3d_t", 224)])
def test_what_torchvision_s_weights_were_trained_with_is_known(name, extra):
    with torch.device("meta"):
        network = get_model(f"torchvision/{name}", num_classes=5)
    theirs = get_model_weights(name)["DEFAULT"].transforms()
    made_for = network.preprocessing
    assert made_for.mean == tuple(theirs.mean)
    assert made_for.std == tuple(theirs.std)
    assert made_for.crop_size == theirs.crop_size[0] == extra
    assert made_for.short_side == min(theirs.resize_size)
    assert made_for.clip_length == (32 if name == "swin3d_t" else 16)


def test_what_timm_s_weights_were_trained_with_is_known():
    made_for = get_model("timm/test_vit", num_classes=5).preprocessing
    config = timm.data.resolve_data_config({}, model=timm.create_model("test_vit"))
    assert made_for.mean == config["mean"] == (0.5, 0.5, 0.5)
    assert (made_for.crop_size, made_for.short_side) == (160, int(160 / config["crop_pct"]))
    assert (made_for.interpolation, made_for.clip_length) == ("bicubic", None)


# Names


def test_names_of_all_libraries_are_listed():
    assert {"torchvision/mvit_v2_s", "torchvision/r3d_18", "torchvision/resnet50"} <= set(list_models("torchvision/*"))
    assert "timm/resnet50" in list_models("*/resnet50")
    assert list_models("dg_p3d_tiny") == ["dg_p3d_tiny"]
    assert not [name for name in list_models() if "/" in name], "our own, unless a library is named"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mvit_v2_s", "Did you mean 'torchvision/mvit_v2_s'?"),
        ("timm/mvit_v2_s", "must be a network of timm, got 'timm/mvit_v2_s'. Did you mean 'torchvision/mvit_v2_s'?"),
        ("torchvision/mvit_v2_m", "Did you mean 'torchvision/mvit_v2_s'"),
        ("torchvision/dg_p3d_tiny", "Did you mean 'dg_p3d_tiny'"),
        ("qqq", "see `list_models('*/*')`"),
    ],
    ids=["without-library", "other-library", "letter", "own", "nothing"],
)
def test_unknown_names_list_the_close_ones_of_all_libraries(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        get_model(name, num_classes=2)


@pytest.mark.parametrize("source", ["timm", "transformers"])
def test_a_library_that_is_not_installed_names_the_extra(monkeypatch, source):
    monkeypatch.setattr("lightning_opplan.models.libraries.sources.find_spec", lambda name: None)
    message = f"need an extra that is not installed: pip install 'lightning-opplan\\[{source}\\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        get_model(f"{source}/any", num_classes=2)
    assert known_names() == []
    assert set(SOURCES) == {"timm", "torchvision", "transformers"}


# What goes wrong


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision/r3d_18", {"weights": "KINETICS400_V2"}, "got 'KINETICS400_V2'. Did you mean 'KINETICS400_V1'"),
        (
            "timm/test_vit",
            {"weights": "r160_in1"},
            "a tag of timm's weights of 'test_vit', got 'r160_in1'",
        ),
        ("torchvision/r3d_18", {"in_channels": 2}, "`in_channels` must be 3 for a network of torchvision, got 2"),
        ("torchvision/r3d_18", {"dropout": 0.5}, "`dropout` must be left out for 'torchvision/r3d_18'"),
        ("torchvision/mvit_v2_s", {"spatial_size": [64, 64]}, "multiple values for keyword argument 'spatial_size'"),
        ("timm/test_vit", {"dpeth": 3}, "`network_options` must be those of 'timm/test_vit', got .*dpeth"),
    ],
    ids=["enum", "tag", "channels", "dropout", "option", "timm-option"],
)
def test_wrong_options_are_named(name, options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        get_model(name, num_classes=2, **options)


@pytest.mark.transformers
def test_wrong_options_of_transformers_are_named():
    with pytest.raises(ValueError, match="got 'hiden_size'. Did you mean 'hidden_size'"):
        get_model("transformers/videomae", num_classes=2, hiden_size=24)
    with pytest.raises(ValueError, match="`dropout` must be left out for 'transformers/videomae'"):
        own("transformers/videomae", dropout=0.5)
    with pytest.raises(FileNotFoundError, match="got './nowhere': no such folder"):
        own("transformers/videomae", weights="./nowhere")


def test_missing_file_of_weights_is_named():
    with pytest.raises(FileNotFoundError, match="got 'nowhere.pth', which does not exist"):
        get_model("torchvision/r3d_18", num_classes=2, weights="nowhere.pth")


@pytest.fixture
def _no_network(monkeypatch, tmp_path):
    """No hub, and nothing in its cache."""
    from urllib.error import URLError

    def refuse(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("name", "weights", "source"),
    [
        ("torchvision/mc3_18", "KINETICS400_V1", "https://download.pytorch.org/models/mc3_18-a90a0ba3.pth"),
        ("timm/test_vit", "DEFAULT", r"https://huggingface.co/timm/test_vit.r160_in1k \(model.safetensors\)"),
        pytest.param(
            "transformers/videomae",
            "MCG-NJU/videomae-base",
            r"https://huggingface.co/MCG-NJU/videomae-base \(config.json, model.safetensors, preprocessor.*\)",
            marks=pytest.mark.transformers,
        ),
    ],
    ids=["torchvision", "timm", "transformers"],
)
def test_a_machine_without_network_is_told_which_file_to_bring(name, weights, source):
    message = (
        f"`weights='{weights}'` could not be downloaded from {source}: .* download that elsewhere and give its path"
    )
    with pytest.raises(RuntimeError, match=message):
        get_model(name, num_classes=5, weights=weights)


# What they take


@pytest.mark.parametrize(
    ("name", "fits", "shape", "message"),
    [
        ("torchvision/mvit_v2_s", (3, 16, 224, 224), (3, 64, 112, 112), "takes clips of 16 frames of 224 px and no"),
        ("torchvision/s3d", (3, 16, 224, 224), (3, 8, 224, 224), "does not take clips of 8 frames of 224 px"),
        ("torchvision/mc3_18", (3, 8, 112, 112), (3, 112, 112), "takes clips, got 112 px"),
        ("torchvision/vit_b_16", (3, 224, 224), (3, 192, 192), "takes images of 224 px and nothing else"),
        ("timm/vit_tiny_patch16_224", (3, 224, 224), (3, 192, 192), "does not take images of 192 px .*dynamic_img"),
        pytest.param(
            "transformers/videomae", (3, 16, 32, 32), (3, 8, 32, 32),
            "takes clips of 16 frames of 32 px and nothing else. Another one is made with",
            marks=pytest.mark.transformers,
        ),
        pytest.param(
            "transformers/timesformer", (3, 16, 32, 32), (3, 8, 32, 32), "takes clips of 16 frames of 32 px and",
            marks=pytest.mark.transformers,
        ),
    ],
)  # fmt: skip
def test_shapes_are_checked_without_a_forward_pass(name, fits, shape, message):
    with torch.device("meta"):
        network = own(name)
    network.check_shape(fits)
    with pytest.raises(ValueError, match=message):
        network.check_shape(shape)


def test_checking_a_shape_changes_nothing():
    network = own("torchvision/mc3_18")
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    network.check_shape((3, 8, 64, 64))
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# Stages


@pytest.mark.parametrize(
    ("name", "number", "first", "last", "head"),
    [
        ("dg_p3d_tiny", 5, "conv1.weight", "layer4_dual.0.bn1.weight", "fc_dual.bias"),
        ("slowfast_resnet50", 5, "lateral.0.0.weight", "fast.layer4.0.bn1.weight", "fc.bias"),
        ("lgd_p3d_resnet18", 5, "conv1.weight", "layer4.0.bn1.weight", "fc_g.bias"),
        ("torchvision/r3d_18", 5, "inner.stem.0.weight", "inner.layer4.0.conv1.0.weight", "inner.fc.bias"),
        ("torchvision/mvit_v2_s", 17, "inner.conv_proj.bias", "inner.blocks.15.norm1.bias", "inner.norm.bias"),
        ("torchvision/swin3d_t", 8, "inner.patch_embed.proj.bias", "inner.features.6.0.norm1.bias", "inner.head.bias"),
        ("torchvision/resnet50", 5, "inner.bn1.bias", "inner.layer4.0.conv1.weight", "inner.fc.weight"),
        ("timm/test_vit", 7, "inner.pos_embed", "inner.blocks.5.norm1.bias", "inner.head.bias"),
        ("timm/test_resnet", 5, "inner.bn1.bias", "inner.layer4.0.conv1.weight", "inner.fc.weight"),
        ("timm/test_convnext", 5, "inner.stem.0.bias", "inner.stages.3.blocks.0.gamma", "inner.head.norm.bias"),
        pytest.param(
            "transformers/videomae", 4, "inner.videomae.embeddings.patch_embeddings.projection.bias",
            "inner.videomae.encoder.layer.2.layernorm_before.bias", "inner.fc_norm.bias",
            marks=pytest.mark.transformers,
        ),
    ],
)  # fmt: skip
def test_stages_go_from_the_stem_to_the_head(name, number, first, last, head):
    with torch.device("meta"):
        network = own(name)
    numbers = numbered(network)
    assert len(network.stages) == number
    assert (numbers[first], numbers[last], numbers[head]) == (0, number - 1, number)
    assert set(numbers.values()) == set(range(number + 1))
    assert set(numbers) == {key for key, _ in network.named_parameters()}


def test_whole_modules_are_the_largest_ones():
    network = own("timm/test_resnet")
    names = [name for name, number in numbered(network).items() if number < 2]
    found = whole_modules(network, names)
    assert network.inner.layer1 in found
    assert network.inner.conv1 in found
    assert not any(module is network.inner.layer2 for module in found)


# Activation checkpointing


@pytest.mark.parametrize(
    "name",
    ["torchvision/mc3_18", "timm/test_vit", pytest.param("transformers/videomae", marks=pytest.mark.transformers)],
)
def test_checkpointed_gradients_and_statistics_are_the_same(name):
    torch.manual_seed(0)
    plain = own(name)
    checkpointed = own(name, activation_checkpointing=True)
    checkpointed.load_state_dict(plain.state_dict())
    results = []
    for network in (plain, checkpointed):
        torch.manual_seed(2)
        loss = functional.cross_entropy(network(inputs_for(name)), torch.tensor([0, 3]))
        loss.backward()
        results.append(
            {key: value.grad.clone() for key, value in network.named_parameters() if value.grad is not None}
        )
    assert results[0].keys() == results[1].keys()
    for key, gradient in results[0].items():
        torch.testing.assert_close(results[1][key], gradient, rtol=1e-4, atol=1e-6)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(checkpointed.state_dict()[key], value)


@pytest.mark.transformers
@pytest.mark.parametrize(("name", "kind"), [("videomae", "VideoMAE"), ("vivit", "Vivit")])
@pytest.mark.parametrize("options", [{}, {"do_normalize": False}], ids=["normalised", "plain"])
def test_values_are_made_of_clips_as_the_library_makes_them(tmp_path, name, kind, options):
    import transformers

    small = {"image_size": 32, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    getattr(transformers, f"{kind}ForVideoClassification")(
        getattr(transformers, f"{kind}Config")(**small, intermediate_size=16)
    ).save_pretrained(tmp_path)
    processor = getattr(transformers, f"{kind}VideoProcessor")(do_resize=False, do_center_crop=False, **options)
    processor.save_pretrained(tmp_path)
    clip = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    theirs = processor([clip], return_tensors="pt")["pixel_values"][0]
    known = get_model(f"transformers/{name}", num_classes=2, weights=str(tmp_path)).preprocessing
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (known.mean, known.std))
    torch.testing.assert_close((clip / 255 - mean) / std, theirs, atol=1e-4, rtol=1e-4)
