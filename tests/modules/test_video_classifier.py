import pytest
import torch
from torch.nn import functional

from lightning_opplan import VideoClassifier
from lightning_opplan.callbacks import FreezeBatchNorm
from tests.conftest import quiet_trainer


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
