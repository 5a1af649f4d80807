import math
from functools import partial

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD

from lightning_opplan.planning.graph import Axis
from lightning_opplan.tuner.grid import run_grid
from tests.helpers import toy

AXES = [
    Axis("batch", [{"data.batch_size": size} for size in (80, 160)]),  # two batches, then one
    Axis("rate", [{"model.lr": rate} for rate in (0.1, 0.01)]),
]


def grid(folder, model=toy.Classifier, trainer=None, epochs=6):
    trainer = trainer or partial(Trainer, accelerator="cpu", logger=False, max_epochs=2)
    return run_grid(toy.tuner(folder, model=model, trainer=trainer), axes=AXES, epochs=[epochs])


class Recording(toy.Classifier):
    seen = None

    def configure_optimizers(self):
        module = self

        class RecordingSGD(SGD):
            def step(self, closure=None):
                state = str(module.trainer.default_root_dir).rpartition("--")[2]
                module.seen.setdefault(state, []).append(self.param_groups[0]["lr"])
                return super().step(closure)

        return RecordingSGD(self.parameters(), self.hparams.lr, momentum=0.9)


@pytest.fixture
def rates(monkeypatch):
    monkeypatch.setattr(Recording, "seen", {})
    return Recording.seen


def test_stages_train_for_their_epochs_with_their_rates(tmp_path, rates):
    """Also where the Trainer says fewer epochs, and without a stop at a knee."""
    result = grid(tmp_path, Recording)
    assert rates["1.2.step.6.1"] == [0.1] * 3 * 2
    assert rates["1.2.step.6.2"] == [0.01] * 3
    assert rates["2.step.6.1"] == [0.1] * 3
    cosine = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates["2.cosine.6.1"] == pytest.approx(cosine)
    halves = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(6)]
    assert rates["1.2.cosine.6.1"] == pytest.approx(halves)
    assert rates["1.2.cosine.6.2"] == pytest.approx(cosine[3:])
    assert all(len(outcome.curve) == 1 for outcome in result.outcomes.values())  # validated at the end alone


@pytest.mark.slow
def test_interrupted_stage_goes_on_with_the_rates_it_had(tmp_path, rates):
    class Interrupting(Recording):
        count = 0

        def on_train_epoch_start(self):
            Interrupting.count += 1
            if Interrupting.count % 3 == 0:
                raise ConnectionError("interrupted")

    whole = grid(tmp_path / "whole", Recording)
    expected = {state: list(values) for state, values in rates.items()}
    rates.clear()
    for _ in range(60):
        try:
            result = grid(tmp_path / "parts", Interrupting)
            break
        except ConnectionError:
            pass
    assert rates == expected
    assert {e: o.value for e, o in result.outcomes.items()} == {e: o.value for e, o in whole.outcomes.items()}


def test_callbacks_that_watch_the_metric_are_left_out(tmp_path):
    """One that stops early would end a training whose epochs are given, and finds no metric before the end."""

    def trainer(callbacks, **options):
        own = [EarlyStopping("val/score", patience=0, mode="max")]
        return Trainer(accelerator="cpu", logger=False, callbacks=[*own, *callbacks], **options)

    result = grid(tmp_path, trainer=trainer)
    assert {outcome.epochs_run for outcome in result.outcomes.values()} == {3, 6}
