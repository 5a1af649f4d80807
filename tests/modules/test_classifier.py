"""What classifiers of clips and of images share: optimizers, freezing, mixing, averaging, checks of data."""

from functools import partial

import pytest
import timm.optim
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.nn import functional
from torch.optim import AdamW

from lightning_opplan import Axis, KneeStopping, PathSearchTuner, TransitionGraph, VideoClassifier
from lightning_opplan.callbacks import ExponentialWeightAveraging, weight_averaging
from lightning_opplan.data import DemoDataModule
from lightning_opplan.models.network import numbered
from lightning_opplan.modules import ImageClassifier
from lightning_opplan.modules.mixing import Mixing
from lightning_opplan.modules.parameter_groups import parameter_groups
from tests.helpers.scripted import quiet_trainer


def images(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 3, 32, 32, generator=generator), torch.randint(4, (num,), generator=generator)


def loader(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


def classifier(network="timm/test_resnet", **options):
    torch.manual_seed(0)
    return ImageClassifier(network, 4, **options)


# Optimizers


def test_a_plain_optimizer_has_one_group_of_all_parameters():
    model = classifier()
    (group,) = model.configure_optimizers().param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


def test_rates_and_decays_equal_timm_s_by_layer():
    """`timm.optim.param_groups_layer_decay` counts the same stages, and leaves the same vectors out."""
    model = classifier("timm/test_vit", optimizer="adamw", weight_decay=0.05, decayed="weights", layer_decay=0.7)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, AdamW)
    inner = model.network.inner
    theirs = timm.optim.param_groups_layer_decay(
        inner, weight_decay=0.05, layer_decay=0.7, no_weight_decay_list=inner.no_weight_decay()
    )
    expected = {id(p): (0.01 * g["lr_scale"], g["weight_decay"]) for g in theirs for p in g["params"]}
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert found.keys() == expected.keys()
    for key, (rate, decay) in expected.items():
        assert found[key] == (pytest.approx(rate), decay)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "`optimizer` must be one of 'sgd', 'adamw', got 'adam'"),
        ({"decayed": "biases"}, "`decayed` must be one of 'all', 'weights'"),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be a share of at least 0 and below 1, got 1.0"),
        ({"mixup": -1.0}, "`mixup` must be the α of a Beta distribution, or 0 for none, got -1.0"),
        ({"frozen_stages": 6}, "`frozen_stages` must be from 0 to 5, the stages of 'timm/test_resnet' .* got 6"),
        ({"network": "torchvision/mc3_18"}, "must be one for images, got 'torchvision/mc3_18', which takes clips"),
    ],
    ids=["optimizer", "decayed", "smoothing", "mixup", "stages", "clips"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options)


def test_layer_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`layer_decay` must be a factor above 0 and at most 1, got 1.5"):
        parameter_groups({}, {}, learning_rate=0.1, weight_decay=0.0, layer_decay=1.5)


# Freezing


@pytest.mark.parametrize("number", [0, 3, 5])
def test_frozen_stages_stay_as_they_were(tmp_path, number):
    model = classifier(frozen_stages=number)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    batches = loader(images(4), images(4, 1))
    quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(model, batches, batches)
    stages = ("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)
    frozen = tuple(f"inner.{name}." for names in stages[:number] for name in names)
    for key, value in model.network.state_dict().items():
        if key.startswith(frozen or ("none",)):
            assert torch.equal(value, before[key]), key
    changed = {key for key, value in model.network.state_dict().items() if not torch.equal(value, before[key])}
    assert {"inner.fc.weight", "inner.fc.bias"} <= changed
    assert ("inner.layer3.0.bn1.running_mean" in changed) is (number < 4)


def test_frozen_stages_of_our_own_network():
    model = VideoClassifier("dg_p3d_tiny", 4, frozen_stages=5).train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["network.fc.weight", "network.fc.bias", "network.fc_dual.weight", "network.fc_dual.bias"]
    assert not model.network.layer4_dual.training
    assert model.network.dropout.training


# Mixing


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (4, 3, 8, 32, 32)], ids=["images", "clips"])
@pytest.mark.parametrize("options", [{"mixup": 0.5}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
def test_labels_say_what_part_of_a_mixed_input_is_of_which(shape, options):
    inputs = torch.arange(4.0).reshape(4, *[1] * (len(shape) - 1)).expand(shape).contiguous()
    labels = torch.tensor([0, 1, 2, 3])
    torch.manual_seed(3)
    mixed, shares = Mixing(4, **options)(inputs, labels)
    assert type(mixed) is torch.Tensor
    # Of inputs as high as their label, the mean is what the labels say it is, whichever way they are mixed.
    torch.testing.assert_close(mixed.flatten(1).mean(1), shares @ torch.arange(4.0))
    assert not torch.equal(mixed, inputs)
    if len(shape) == 5:
        assert torch.equal(mixed[:, :, 0], mixed[:, :, -1]), "all frames are mixed alike"


def test_nothing_is_mixed_or_drawn_by_default():
    inputs, labels = images(4)
    state = torch.get_rng_state()
    assert Mixing(4)(inputs, labels) == (inputs, labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_smoothed_loss_equals_the_formula():
    model = classifier(label_smoothing=0.2).eval()
    model.log = lambda *_, **__: None
    inputs, labels = images(4)
    log_shares = functional.log_softmax(model(inputs), dim=1)
    wanted = 0.8 * functional.one_hot(labels, 4) + 0.2 / 4
    torch.testing.assert_close(model.training_step((inputs, labels), 0), -(wanted * log_shares).sum(1).mean())


# Averaging


@pytest.mark.parametrize("kind", ["option", "lightning"])
def test_what_is_validated_kept_and_tested_is_the_average(tmp_path, kind):
    """In a fit of one's own, with `KneeStopping`; in a search: `tests/tuner/test_finetuning.py`."""
    seen = []

    class Watched(ImageClassifier):
        def on_train_batch_end(self, *_):
            seen.append(self.network.inner.fc.weight.detach().clone())

    torch.manual_seed(0)
    option = {"ema_decay": 0.5} if kind == "option" else {}
    model = Watched("timm/test_resnet", 4, **option)
    knee = KneeStopping("val/loss", mode="min", dirpath=tmp_path / "kept")
    callbacks = [knee, *([EMAWeightAveraging(decay=0.5)] if kind == "lightning" else [])]
    trainer = quiet_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, callbacks=callbacks)
    trainer.fit(model, loader(images(4), images(4, 1), images(4, 2)), loader(images(8, 3)))
    average = seen[0]
    for weights in seen[1:]:
        average = 0.5 * average + 0.5 * weights
    kept = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    torch.testing.assert_close(kept["state_dict"]["network.inner.fc.weight"], average)
    assert trainer.callback_metrics["val/loss"] == pytest.approx(knee.points[-1][1])
    # The same Trainer again, which still knows the weights of the last step.
    if kind == "option":
        trainer.test(model, loader(images(8, 3)), ckpt_path="best", verbose=False)
        torch.testing.assert_close(model.network.inner.fc.weight.detach(), average)
        assert trainer.callback_metrics["test/loss"] == pytest.approx(knee.points[-1][1], rel=1e-4)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_wrong_decay_is_refused(decay):
    with pytest.raises(ValueError, match="`decay` must be a share of at least 0 and below 1"):
        ExponentialWeightAveraging(decay)


def test_a_search_that_averages_itself_refuses_a_second_average(tmp_path):
    graph = TransitionGraph.lattice(axes=[Axis("only", [{}])])
    tuner = PathSearchTuner(
        graph, model=lambda: classifier(ema_decay=0.9), data=lambda: (loader(images(4)), loader(images(4))),
        trainer=lambda **kw: quiet_trainer(tmp_path, **{"max_epochs": 1, **kw}), monitor="val/loss", mode="min",
        dirpath=tmp_path / "run", averaging=True, progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="must leave averaging to the search.*Leave `ema_decay` out"):
        tuner.search()


# What the data give


def demo(tmp_path, **options):
    return DemoDataModule(str(tmp_path / "videos"), num_train=3, num_test=1, **options)


def cut_as(data):
    spec = data.train_spec
    return spec.crop_size, spec.short_side, spec.clip_length


def test_data_take_what_the_network_was_made_for_where_nothing_else_is_asked_for(tmp_path):
    network = VideoClassifier("torchvision/mc3_18", 8)
    data = demo(tmp_path)
    network.check_data(data)
    assert cut_as(data) == (
        112,
        (128, 170),
        16,
    )
    assert data.eval_spec.mean == network.network.preprocessing.mean == (0.43216, 0.394666, 0.37645)
    data = demo(tmp_path, crop_size=56, clip_length=8, mean=(0.1, 0.1, 0.1))
    network.check_data(data)
    assert cut_as(data) == (56, (64, 85), 8)
    assert data.eval_spec.mean == (0.1, 0.1, 0.1)
    assert data.eval_spec.std == network.network.preprocessing.std


def test_our_own_networks_leave_the_data_as_they_were(tmp_path):
    data = demo(tmp_path)
    VideoClassifier("dg_p3d_tiny", 8).check_data(data)
    assert cut_as(data) == (
        224,
        (256, 340),
        16,
    )
    assert data.eval_spec.mean == (0.485, 0.456, 0.406)


def test_clips_that_a_network_does_not_take_are_refused_before_the_first_epoch(tmp_path):
    data = demo(tmp_path, clip_length=8, eval_clip_length=16, crop_size=32, short_side=(32, 36))
    message = "got clips of 8 frames of 32 px .* for training: .*T ≥ 16 frames"
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path, max_epochs=1).fit(VideoClassifier("dg_p3d_tiny", 8), data)


def test_a_plan_says_which_settings_a_fixed_network_refuses(tmp_path):
    graph = TransitionGraph.lattice(
        axes=[
            Axis("clip", [{"data.clip_length": 8}, {"data.clip_length": 16}, {"data.clip_length": 32}]),
            Axis("rate", [{"model.learning_rate": 0.1}, {"model.learning_rate": 0.01}]),
        ]
    )
    tuner = PathSearchTuner(
        graph, model=partial(VideoClassifier, "torchvision/mvit_v2_s", 8),
        data=partial(demo, tmp_path, eval_clip_length=16), trainer=partial(quiet_trainer, tmp_path),
        monitor="val/accuracy", dirpath=tmp_path / "run", progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="4 of the 6 states cannot be trained") as caught:
        tuner.search()
    said = str(caught.value)
    assert "1-1, 1-2: The network must take what the data give, got clips of 8 frames of 224 px" in said
    assert "3-1, 3-2: The network must take what the data give, got clips of 32 frames of 224 px" in said
    assert "takes clips of 16 frames of 224 px and nothing else" in said
    assert not (tmp_path / "videos").exists(), "nothing has been drawn or trained"


def test_checkpoint_of_a_library_s_network_loads_by_itself(tmp_path):
    model = classifier("timm/test_vit", network_options={"depth": 3}, ema_decay=0.9)
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(model, loader(images(4)), loader(images(4)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = ImageClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert len(other.network.inner.blocks) == 3
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


def test_library_network_keeps_channels_last_where_that_is_wanted():
    model = classifier(channels_last=True)
    kernels = [m for m in model.network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in kernels)


def test_dropout_of_a_frozen_stem_rests_and_that_of_the_head_does_not():
    model = VideoClassifier("torchvision/swin3d_t", 4, dropout=0.5, frozen_stages=2).train()
    assert not model.network.inner.pos_drop.training
    assert any(m.training for m in model.network.inner.features[-1].modules() if isinstance(m, nn.Dropout))
    assert VideoClassifier("torchvision/swin3d_t", 4, dropout=0.5).train().network.inner.pos_drop.training


def test_head_of_vgg_is_no_stage():
    model = classifier("torchvision/vgg11", frozen_stages=1)
    numbers = numbered(model.network)
    assert numbers["inner.classifier.0.weight"] == numbers["inner.classifier.6.weight"] == max(numbers.values())
    assert [name for name, p in model.network.named_parameters() if not p.requires_grad] == [
        "inner.features.0.weight",
        "inner.features.0.bias",
    ]


def test_positions_of_libraries_are_not_decayed():
    model = VideoClassifier("torchvision/mvit_v2_s", 4, decayed="weights")
    decayed = {id(p) for g in model.configure_optimizers().param_groups if g["weight_decay"] for p in g["params"]}
    places = [p for name, p in model.named_parameters() if ".rel_pos_" in name]
    assert places
    assert not decayed & {id(p) for p in places}


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_whole_numbers_are_not_averaged(tmp_path, decay):
    model = classifier("timm/test_vit", ema_decay=decay)
    index = torch.arange(169)
    model.network.register_buffer("index", index.clone())
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(model, loader(images(8)), loader(images(4)))
    assert torch.equal(model.network.index, index)


def test_a_checkpoint_is_validated_with_its_own_weights_after_a_fit(tmp_path):
    model = classifier("timm/test_vit", ema_decay=0.9, learning_rate=0.5)
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    batches = loader(images(8)), loader(images(8))
    trainer.fit(model, *batches)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, *batches)
    (found,) = trainer.validate(model, batches[1], ckpt_path=str(tmp_path / "first.ckpt"), verbose=False)
    first = ImageClassifier.load_from_checkpoint(tmp_path / "first.ckpt", weights_only=True)
    (expected,) = quiet_trainer(tmp_path).validate(first, batches[1], verbose=False)
    assert found["val/loss"] == pytest.approx(expected["val/loss"])


def test_the_average_is_where_the_weights_are(tmp_path, monkeypatch):
    placed = []
    monkeypatch.setattr(weight_averaging, "place_average", lambda callback, device: placed.append(device))
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(classifier("timm/test_vit", ema_decay=0.9), loader(images(4)), loader(images(4)))
    assert placed == [trainer.strategy.root_device]


def test_what_the_weights_were_trained_on_is_known_to_a_checkpoint(tmp_path):
    asked = {"mean": [0.5, 0.5, 0.5], "short_side": 170}
    model = classifier("timm/test_vit", network_options={"preprocessing": asked})
    assert model.network.preprocessing.mean == (0.5, 0.5, 0.5)
    assert model.hparams["network_options"]["preprocessing"]["crop_size"] == model.network.preprocessing.crop_size
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(model, loader(images(4)), loader(images(4)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    other = ImageClassifier.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert other.network.preprocessing == model.network.preprocessing
    with pytest.raises(ValueError, match="preprocessing"):
        classifier("timm/test_vit", network_options={"preprocessing": {"meam": 1}})


def test_statistics_move_once_a_step_with_checkpointing():
    plain, checkpointed = (classifier("timm/test_resnet", activation_checkpointing=on).train() for on in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    for model in (plain, checkpointed):
        model.network(images(4)[0]).sum().backward()
    assert int(checkpointed.network.inner.layer1[0].bn1.num_batches_tracked) == 1
