import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_opplan import FreezeBatchNorm
from tests.helpers.scripted import Points, Scripted, quiet_trainer


class Normed(LightningModule):
    def __init__(self, num_norms=3):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)) for _ in range(num_norms)))

    def training_step(self, batch, batch_idx):
        self.trainer.lightning_module.was_training = [norm.training for norm in self.norms()]
        return self.layers(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.layers(batch[0])

    def on_train_epoch_start(self):
        self.train()

    def norms(self):
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm1d)]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, weight_decay=0.1)


def test_all_but_the_first_are_frozen(tmp_path):
    model = Normed()
    before = [{key: value.clone() for key, value in norm.state_dict().items()} for norm in model.norms()]
    trainer = quiet_trainer(tmp_path, callbacks=[FreezeBatchNorm()], max_epochs=2, val_check_interval=2)
    trainer.fit(model, Points())
    first, *others = [
        all(torch.equal(old[key], new) for key, new in norm.state_dict().items())
        for old, norm in zip(before, model.norms(), strict=True)
    ]
    assert not first
    assert all(others)
    assert model.was_training == [True, False, False]


def test_layers_that_the_strategy_puts_in_place_are_frozen(tmp_path):
    """`sync_batchnorm` replaces every layer after `setup`."""

    class Replacing(Normed):
        def on_fit_start(self):
            for block in self.layers:
                replaced = nn.BatchNorm1d(1)
                replaced.weight, replaced.bias = block[1].weight, block[1].bias
                block[1] = replaced

    model = Replacing()
    quiet_trainer(tmp_path, callbacks=[FreezeBatchNorm()], max_epochs=1).fit(model, Points())
    assert model.was_training == [True, False, False]
    assert [bool(norm.running_mean.any()) for norm in model.norms()] == [True, False, False]


def test_nothing_to_freeze_is_refused(tmp_path):
    trainer = quiet_trainer(tmp_path, callbacks=[FreezeBatchNorm()], max_epochs=1)
    with pytest.raises(ValueError, match="must have layers to freeze beside the first, got Normed with 1 BatchNorm"):
        trainer.fit(Normed(num_norms=1), Points())


class Late(Scripted):
    """Makes its layers in `configure_model`, and sets them to training in every step."""

    def __init__(self):
        super().__init__([0.1])
        self.network = None

    def configure_model(self):
        if self.network is None:
            self.network = nn.Sequential(nn.Linear(1, 2), *(nn.BatchNorm1d(2) for _ in range(3)), nn.Linear(2, 1))

    def training_step(self, batch, batch_idx):
        self.train()
        return self.network(batch[0]).pow(2).mean()


def test_layers_that_come_late_are_frozen_and_stay_so_when_a_step_calls_train(tmp_path):
    model = Late()
    quiet_trainer(tmp_path, callbacks=[FreezeBatchNorm()], max_epochs=2).fit(model, Points())
    first, *others = (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d))
    assert int(first.num_batches_tracked) == 8
    assert [int(layer.num_batches_tracked) for layer in others] == [0, 0]
    assert not any(parameter.requires_grad for layer in others for parameter in layer.parameters())
    model.train()
    model.network(torch.ones(4, 1))
    assert [int(layer.num_batches_tracked) for layer in others] == [1, 1]  # after the fit they are anybody's
