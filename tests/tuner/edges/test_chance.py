from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional

from lightning_opplan.data import DemoDataModule
from lightning_opplan.modules import VideoClassifier
from lightning_opplan.tuner.edges.chance import MeasureChance
from tests.helpers import budgeted, toy

TRAINER = partial(Trainer, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)


def chance(model, data, monitor):
    measure = MeasureChance(monitor)
    TRAINER(max_epochs=1, limit_train_batches=1, callbacks=[measure], num_sanity_val_steps=0).fit(model, data)
    return measure.value


def shares():
    data = budgeted.Points()
    data.setup("fit")
    return torch.bincount(data.val[:][1]) / len(data.val)


def test_accuracy_of_chance_is_the_largest_share():
    assert chance(budgeted.Scorer(), budgeted.Points(), "val/accuracy") == pytest.approx(shares().max().item())


def test_loss_of_chance_is_the_entropy_of_the_classes():
    expected = -(shares() * shares().log()).sum().item()
    assert chance(budgeted.Scorer(), budgeted.Points(), "val/loss") == pytest.approx(expected, rel=1e-5)


def test_logarithms_of_probabilities_are_logarithms_of_frequencies():
    class Logarithms(budgeted.Scorer):
        def forward(self, points):
            return self.network(points).log_softmax(1)

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", functional.nll_loss(self(batch[0]), batch[1]))

    expected = -(shares() * shares().log()).sum().item()
    assert chance(Logarithms(), budgeted.Points(), "val/loss") == pytest.approx(expected, rel=1e-5)


def test_mean_of_top_1_3_and_5_over_clips(tmp_path):
    options = {"num_train": 4, "num_test": 1, "clip_length": 16, "eval_clip_length": 16, "val_size": 0.5}
    data = DemoDataModule(
        root=tmp_path, short_side=[32, 32], crop_size=32, batch_size=4, eval_batch_size=16, **options
    )
    model = VideoClassifier(network="dg_p3d_tiny", num_classes=8)
    # As many clips of each class: of eight, one, three and five are right.
    assert chance(model, data, "val/accuracy") == pytest.approx((1 + 3 + 5) / 8 / 3)


def test_the_model_scores_as_before():
    model = budgeted.Scorer()
    chance(model, budgeted.Points(), "val/accuracy")
    points = torch.randn(5, 2)
    model.eval()
    assert torch.equal(model(points), model.network(points))


def test_without_scores_of_classes_there_is_none():
    class Regression(budgeted.Scorer):
        def forward(self, points):
            return self.network(points)[:, 0]

        def training_step(self, batch, batch_idx):
            return functional.mse_loss(self(batch[0]), batch[1].float())

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.training_step(batch, batch_idx))

    assert chance(Regression(), budgeted.Points(), "val/loss") is None
    assert chance(toy.Classifier(), toy.Quadrants(), "val/score") is None  # it does not call itself
