import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import GrowingWeightAveraging

NUM_BATCHES = 4


class Net(LightningModule):
    """Keeps what its weights and buffers were after every step, and what was validated."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def on_train_batch_end(self, *_):
        self.seen.append(snapshot(self))

    def validation_step(self, batch, batch_idx):
        self.validated.append(snapshot(self))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Saving(Callback):
    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch + 1}.ckpt")


def snapshot(module):
    return {name: tensor.detach().double().numpy().copy() for name, tensor in module.network.state_dict().items()}


def loaders():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(NUM_BATCHES * 8, 3, generator=generator)
    labels = (points.sum(1) > 0).long()
    data = TensorDataset(points, labels)
    return DataLoader(data, batch_size=8), DataLoader(data, batch_size=32)


def fit(folder, max_epochs, *, share=0.2, ckpt_path=None):
    torch.manual_seed(0)
    net = Net()
    trainer = Trainer(
        accelerator="cpu", max_epochs=max_epochs, logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
        callbacks=[GrowingWeightAveraging(share), Saving(folder)],
    )  # fmt: skip
    trainer.fit(net, *loaders(), ckpt_path=ckpt_path)
    return net, trainer


def expected(seen, share):
    """The recursion, in float64: each step moves the average by 1 / (share · updates) of the way."""
    average = dict(seen[0])
    for number, weights in enumerate(seen[1:], start=1):
        step = min(1.0, 1 / (share * (number + 1)))
        for name, value in weights.items():
            moved = average[name] + step * (value - average[name])
            average[name] = value if name.endswith("num_batches_tracked") else moved
    return average


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_what_is_validated_and_ends_is_the_average(tmp_path, share):
    net, _ = fit(tmp_path, 6, share=share)
    for epoch, validated in enumerate(net.validated, start=1):
        average = expected(net.seen[: epoch * NUM_BATCHES], share)
        for name, value in average.items():
            np.testing.assert_allclose(validated[name], value, rtol=1e-4, atol=1e-5)
    for name, value in expected(net.seen, share).items():
        np.testing.assert_allclose(snapshot(net)[name], value, rtol=1e-4, atol=1e-5)


def test_a_share_of_one_is_the_plain_mean(tmp_path):
    net, _ = fit(tmp_path, 3, share=1.0)
    mean = np.mean([weights["0.weight"] for weights in net.seen], 0)
    np.testing.assert_allclose(snapshot(net)["0.weight"], mean, rtol=1e-4, atol=1e-5)


def test_training_itself_is_not_changed(tmp_path):
    net, _ = fit(tmp_path, 3)
    torch.manual_seed(0)
    plain = Net()
    Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False, num_sanity_val_steps=0,
        enable_model_summary=False, enable_checkpointing=False,
    ).fit(plain, *loaders())  # fmt: skip
    for one, other in zip(net.seen, plain.seen, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_resumed_training_goes_on_with_the_same_average(tmp_path):
    whole, _ = fit(tmp_path, 6)
    resumed, _ = fit(tmp_path / "resumed", 6, ckpt_path=tmp_path / "3.ckpt")
    assert len(resumed.validated) == 3
    for one, other in zip(whole.validated[3:], resumed.validated, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_wrong_share_is_refused(share):
    with pytest.raises(ValueError, match="`share` must be a share of the updates"):
        GrowingWeightAveraging(share)
