import copy

import pytest
import torch
from torch.nn import functional

from lightning_opplan import VideoClassifier
from lightning_opplan.callbacks import FreezeBatchNorm
from lightning_opplan.modules import classifier as base
from tests.helpers.scripted import quiet_trainer


def classifier(**options):
    return VideoClassifier("dg_p3d_tiny", 6, **options)


def loader(*batches):
    return torch.utils.data.DataLoader(list(batches), batch_size=None)


def clips(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 3, 16, 32, 32, generator=generator), torch.randint(6, (num,), generator=generator)


def test_loss_is_the_sum_over_the_heads(tmp_path):
    model = classifier(dropout=0.0)
    batch = clips(3)
    model.log = lambda *_, **__: None
    heads = model.network.forward_heads(batch[0])
    expected = sum(functional.cross_entropy(head, batch[1]) for head in heads)
    torch.testing.assert_close(model.training_step(batch, 0), expected)


def test_accuracies_equal_a_count_by_hand(tmp_path):
    torch.manual_seed(1)  # draws weights for which the example tells the three accuracies apart
    model = classifier()
    batches = [clips(5, 1), clips(4, 2)]
    (logged,) = quiet_trainer(tmp_path).validate(model, loader(*batches), verbose=False)
    scores = torch.cat([model.eval()(batch[0]) for batch in batches])
    labels = torch.cat([batch[1] for batch in batches])
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    by_hand = {k: (ranks < k).double().mean().item() for k in (1, 3, 5)}
    assert len(set(by_hand.values())) == 3, "the example must tell the three apart"
    for k, accuracy in by_hand.items():
        assert logged[f"val/top{k}"] == pytest.approx(accuracy)
    assert logged["val/accuracy"] == pytest.approx(sum(by_hand.values()) / 3)
    assert logged["val/loss"] == pytest.approx(functional.cross_entropy(scores, labels).item(), rel=1e-5)


def test_few_classes_limit_top_k(tmp_path):
    model = VideoClassifier("dg_p3d_tiny", 2)
    images, labels = clips(4)
    (logged,) = quiet_trainer(tmp_path).validate(model, loader((images, labels % 2)), verbose=False)
    assert logged["val/top3"] == logged["val/top5"] == 1.0


@pytest.mark.parametrize("views_per_pass", [2, 100])
def test_test_averages_the_scores_of_all_views(views_per_pass):
    model = classifier(views_per_pass=views_per_pass).eval()
    views = clips(6)[0].reshape(2, 3, 3, 16, 32, 32)
    expected = torch.stack([torch.stack([model(view[None])[0] for view in video]).mean(0) for video in views])
    torch.testing.assert_close(model.score_views(views), expected, rtol=1e-4, atol=1e-5)


def test_test_logs_accuracies(tmp_path):
    views, labels = clips(4)
    (logged,) = quiet_trainer(tmp_path).test(classifier(), loader((views[:, None], labels)), verbose=False)
    assert {"test/top1", "test/top3", "test/top5", "test/accuracy", "test/loss"} <= set(logged)


def test_predict_returns_scores(tmp_path):
    views, labels = clips(2)
    (scores,) = quiet_trainer(tmp_path).predict(classifier(), loader((views[:, None], labels)))
    assert scores.shape == (2, 6)


def test_optimizer_follows_the_release():
    group = classifier(learning_rate=0.04).configure_optimizers().param_groups[0]
    assert {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.04, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
    }  # fmt: skip


def test_batch_norm_is_frozen_on_request(tmp_path):
    model = classifier(freeze_batch_norm=True)
    assert [type(callback) for callback in model.configure_callbacks()] == [FreezeBatchNorm]
    assert classifier().configure_callbacks() == []
    before = model.network.layer1[0].bn1.running_mean.clone()
    stem = model.network.bn1.running_mean.clone()
    batches = loader(clips(2))
    quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(model, batches, batches)
    assert torch.equal(model.network.layer1[0].bn1.running_mean, before)
    assert not torch.equal(model.network.bn1.running_mean, stem)


def test_network_starts_from_weights_and_the_log_says_so(tmp_path, caplog):
    source = VideoClassifier("dg_p3d_tiny", 400)
    torch.save({"model": source.network.state_dict()}, tmp_path / "kinetics.pth")
    with caplog.at_level("INFO"):
        model = classifier(weights=str(tmp_path / "kinetics.pth"))
    assert torch.equal(model.network.conv1.weight, source.network.conv1.weight)
    assert "`fc` starts anew: the weights are for 400 classes, the network for 6." in caplog.text


def test_memory_format_is_what_is_asked_for():
    assert classifier(channels_last=True).network.conv1.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert classifier(channels_last=False).network.conv1.weight.is_contiguous()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_whatever_the_precision(tmp_path, precision):
    """Lightning's mixed precision refuses to clip the gradients of a fused optimizer."""
    seen = []

    class Watched(VideoClassifier):
        def on_before_zero_grad(self, optimizer):
            seen.append(optimizer.param_groups[0]["fused"])

        def configure_gradient_clipping(self, optimizer, **options):
            super().configure_gradient_clipping(optimizer, **options)
            self.norm = torch.stack([p.grad.norm() for p in self.parameters()]).norm()

    model = Watched("dg_p3d_tiny", 6)
    batches = loader(clips(4))
    options = {"max_epochs": 1, "enable_checkpointing": False, "gradient_clip_val": 0.01, "precision": precision}
    quiet_trainer(tmp_path, **options).fit(model, batches, batches)
    assert float(model.norm) == pytest.approx(0.01, rel=1e-3)
    assert set(seen) == {True if precision == "32-true" else None}


def fitted(tmp_path, **options):
    torch.manual_seed(0)
    model = classifier(dropout=0.0, **options)
    batches = [clips(4, seed) for seed in range(3)]
    trainer = quiet_trainer(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(model, loader(*batches), loader(*batches, clips(3)))
    return model


@pytest.mark.compile
def test_compiled_training_equals_the_plain_one(tmp_path, monkeypatch):
    # Up to the kernels: Inductor takes a minute for those of three graphs, and has the next test.
    score = torch.compile(base._score_heads, dynamic=False, backend="aot_eager")
    monkeypatch.setattr(base, "_compiled", lambda: score)
    options = {"freeze_batch_norm": True, "activation_checkpointing": True}
    plain = fitted(tmp_path, **options)
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    compiled = fitted(tmp_path, compile=True, **options)
    assert graphs["unique_graphs"] == 3, "one for training, one for each of the two sizes of validation batches"
    for key, value in compiled.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], rtol=1e-3, atol=1e-4)


@pytest.mark.compile
def test_compiled_scores_equal_the_plain_ones():
    plain, compiled = classifier().eval(), classifier(compile=True).eval()
    compiled.load_state_dict(plain.state_dict())
    batch, _ = clips(2)
    with torch.no_grad():
        torch.testing.assert_close(compiled(batch), plain(batch), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled_copy_scores_with_its_own_network(monkeypatch):
    compiled = torch.compile(base._score_heads, backend="eager")
    monkeypatch.setattr(base, "_compiled", lambda: compiled)
    model = classifier(compile=True).eval()
    copied = copy.deepcopy(model)
    torch.nn.init.zeros_(copied.network.fc.weight)
    batch, _ = clips(1)
    with torch.no_grad():
        assert not torch.equal(model(batch), copied(batch))


def test_checkpoint_does_not_ask_for_the_weights_that_training_started_from(tmp_path):
    weights = tmp_path / "start.pth"
    torch.save(classifier().network.state_dict(), weights)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(classifier(weights=str(weights)), loader(clips(2)), loader(clips(2)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    weights.unlink()
    VideoClassifier.load_from_checkpoint(tmp_path / "last.ckpt")


def test_training_goes_on_in_another_memory_format(tmp_path):
    """Fused SGD would take the momentum of the other format for its own."""
    results = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        folder = tmp_path / str(channels_last)
        options = {"enable_checkpointing": False}
        trainer = quiet_trainer(folder, max_epochs=1, **options)
        trainer.fit(classifier(dropout=0.0, channels_last=False), loader(clips(4)), loader(clips(2)))
        trainer.save_checkpoint(folder / "last.ckpt")
        model = classifier(dropout=0.0, channels_last=channels_last)
        trainer = quiet_trainer(folder, max_epochs=2, **options)
        trainer.fit(model, loader(clips(4, 1)), loader(clips(2)), ckpt_path=folder / "last.ckpt")
        results.append(model.state_dict())
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-3, atol=1e-4)


def test_training_goes_on_in_another_precision_and_with_the_optimizer_that_was_asked_for(tmp_path):
    class Plain(VideoClassifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)

    options = {"enable_checkpointing": False, "gradient_clip_val": 1.0}
    trainer = quiet_trainer(tmp_path, max_epochs=1, **options)
    trainer.fit(classifier(), loader(clips(4)), loader(clips(2)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    for model, precision, fused in [
        (classifier(), "32-true", True),
        (classifier(), "bf16-mixed", None),
        (Plain("dg_p3d_tiny", 6), "32-true", None),
    ]:
        trainer = quiet_trainer(tmp_path, max_epochs=2, precision=precision, **options)
        trainer.fit(model, loader(clips(4)), loader(clips(2)), ckpt_path=tmp_path / "last.ckpt")
        assert trainer.optimizers[0].param_groups[0]["fused"] is fused


def test_options_of_a_network_are_passed_on():
    model = VideoClassifier("slowfast_resnet50", 3, network_options={"alpha": 8, "depths": [1, 1, 1, 1]})
    assert model.network.alpha == 8
    with pytest.raises(ValueError, match="must be those of 'dg_p3d_tiny', got 'alpah'"):
        classifier(network_options={"alpah": 8})
