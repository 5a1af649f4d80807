import math
import re
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_opplan import KneeRule, KneeStopping
from tests.helpers.scripted import Points, Scripted, quiet_trainer, rise_and_fall

PEAK = 12
CURVE = rise_and_fall(PEAK)


def fit(folder, stopping, values=CURVE, *, ckpt_path=None, data=None, **options):
    callbacks = [stopping, *options.pop("callbacks", [])]
    trainer = quiet_trainer(folder, callbacks=callbacks, **options)
    model = Scripted(values)
    trainer.fit(model, data or Points(), ckpt_path=ckpt_path)
    return trainer, model


def knee_stopping(**options):
    return KneeStopping("val/acc", **{"patience": 3, **options})


def saved_validations(file):
    """How many validations the model of a checkpoint has seen: its epoch, if it is validated once per epoch."""
    return int(torch.load(file, weights_only=True)["state_dict"]["validations"])


def test_stops_after_the_knee_and_keeps_its_weights(tmp_path):
    stopping = knee_stopping()
    trainer, _ = fit(tmp_path, stopping)
    assert trainer.current_epoch == PEAK + 3
    assert stopping.knee_epoch == PEAK
    assert stopping.knee_value == pytest.approx(CURVE[PEAK - 1], abs=1e-4)
    assert saved_validations(stopping.knee_path) == PEAK
    assert [file.name for file in Path(stopping.knee_path).parent.iterdir()] == [f"knee-epoch={PEAK}.ckpt"]


def test_says_in_one_sentence_why_it_stopped(tmp_path):
    stopping = knee_stopping()
    fit(tmp_path, stopping)
    assert re.fullmatch(
        r"val/acc peaked at epoch 12 \(.* on the fitted curve\); nothing better came in the 3 epochs after it\.",
        stopping.stopping_reason,
    )


def test_best_checkpoint_of_the_trainer_is_the_knee(tmp_path):
    stopping = knee_stopping()
    trainer, model = fit(tmp_path, stopping)
    assert trainer.checkpoint_callback is stopping
    trainer.test(model, Points(), ckpt_path="best", verbose=False)
    assert int(model.validations) == PEAK


def test_min_mode(tmp_path):
    stopping = knee_stopping(mode="min")
    trainer, _ = fit(tmp_path, stopping, [-value for value in CURVE])
    assert (trainer.current_epoch, stopping.knee_epoch) == (PEAK + 3, PEAK)


@pytest.mark.parametrize("confirm", [2, 4])
def test_confirm_delays_the_stop(tmp_path, confirm):
    trainer, _ = fit(tmp_path, knee_stopping(confirm=confirm))
    assert trainer.current_epoch == PEAK + 3 + confirm - 1


def test_sanity_check_is_no_point(tmp_path):
    stopping = knee_stopping()
    fit(tmp_path, stopping, num_sanity_val_steps=2)
    assert stopping.points[0] == (1, pytest.approx(CURVE[0]))


def test_fast_dev_run_passes(tmp_path):
    stopping = knee_stopping()
    fit(tmp_path, stopping, fast_dev_run=True)
    assert stopping.points == ()
    assert not list(tmp_path.rglob("*.ckpt"))


def test_validation_every_other_epoch_counts_epochs(tmp_path):
    stopping = knee_stopping(patience=4)
    trainer, _ = fit(tmp_path, stopping, check_val_every_n_epoch=2)
    assert [epoch for epoch, _ in stopping.points[:3]] == [2, 4, 6]
    assert stopping.knee_epoch == 2 * PEAK
    assert trainer.current_epoch == 2 * PEAK + 4


@pytest.mark.parametrize("interval", [0.25, 1], ids=["share", "batches"])
def test_several_validations_in_an_epoch(tmp_path, interval):
    stopping = knee_stopping(patience=1)
    trainer, _ = fit(tmp_path, stopping, val_check_interval=interval)
    assert [epoch for epoch, _ in stopping.points[:5]] == [0.25, 0.5, 0.75, 1, 1.25]
    assert stopping.knee_epoch == PEAK / 4
    assert stopping.points[-1][0] == PEAK / 4 + 1
    assert saved_validations(stopping.knee_path) == PEAK
    assert trainer.global_step == PEAK + 4


def test_stop_waits_for_min_epochs_and_does_not_latch(tmp_path):
    # The rule asks for a stop at 15; afterwards the curve rises again and takes the demand back.
    again = [*CURVE[:16], *(CURVE[PEAK - 1] + 0.02 * n for n in range(1, 60))]
    stopping = knee_stopping()
    trainer, _ = fit(tmp_path, stopping, again, min_epochs=17, max_epochs=40)
    assert trainer.current_epoch == 40
    assert stopping.knee_epoch == 40


def test_min_epochs_alone_delays_the_stop(tmp_path):
    trainer, _ = fit(tmp_path, knee_stopping(), min_epochs=20)
    assert trainer.current_epoch == 20


def test_max_epochs_ends_before_a_knee(tmp_path):
    stopping = knee_stopping()
    trainer, _ = fit(tmp_path, stopping, max_epochs=11)
    assert trainer.current_epoch == 11
    assert stopping.knee_epoch == 11
    assert stopping.stopping_reason.startswith("Training ended at epoch 11 before a knee of val/acc was found")
    assert saved_validations(stopping.knee_path) == 11


def test_last_epoch_is_kept_to_go_on_from_where_no_knee_was_found(tmp_path):
    values = [0.5, 0.9, *[0.4] * 6]
    stopping = knee_stopping()
    fit(tmp_path, stopping, values, max_epochs=8)
    assert stopping.knee_epoch == 2
    assert sorted(file.name for file in tmp_path.rglob("*.ckpt")) == ["knee-epoch=2.ckpt", "knee-epoch=8.ckpt"]


@pytest.mark.parametrize("interrupted", [3, 11, 14])
def test_resumed_run_equals_an_undisturbed_one(tmp_path, interrupted):
    whole = knee_stopping()
    fit(tmp_path / "whole", whole)
    first = knee_stopping()
    fit(tmp_path / "parts", first, max_epochs=interrupted)
    second = knee_stopping()
    last = max(tmp_path.glob("parts/**/*.ckpt"), key=saved_validations)
    trainer, _ = fit(tmp_path / "parts", second, ckpt_path=str(last))
    assert second.points == whole.points
    assert (second.knee_epoch, second.knee_value) == (whole.knee_epoch, whole.knee_value)
    assert trainer.current_epoch == PEAK + 3
    assert saved_validations(second.knee_path) == PEAK


def test_resumed_after_the_stop_it_trains_no_further(tmp_path):
    def keeper():
        return ModelCheckpoint(save_last=True, enable_version_counter=False)

    fit(tmp_path, knee_stopping(), callbacks=[keeper()])
    again = knee_stopping()
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    with pytest.warns(UserWarning, match="exists and is not empty"):
        trainer, _ = fit(tmp_path, again, ckpt_path=last, callbacks=[keeper()])
    assert trainer.current_epoch == PEAK + 3
    assert again.knee_epoch == PEAK
    assert "peaked at epoch 12" in again.stopping_reason


def test_resumed_at_max_epochs_it_still_knows_the_knee(tmp_path):
    fit(tmp_path, knee_stopping(), max_epochs=11)
    again = knee_stopping()
    fit(tmp_path, again, max_epochs=11, ckpt_path=str(tmp_path / "checkpoints" / "knee-epoch=11.ckpt"))
    assert again.knee_epoch == 11
    assert again.knee_path is not None


def test_value_before_training_belongs_to_the_curve(tmp_path):
    falling = [0.8 - 0.01 * epoch for epoch in range(1, 40)]
    stopping = knee_stopping(initial_value=0.8, mode="max")
    trainer, _ = fit(tmp_path, stopping, falling)
    assert stopping.points[0] == (0, 0.8)
    assert stopping.knee_epoch == 0
    assert saved_validations(stopping.knee_path) == 0
    assert trainer.current_epoch == 10


def test_nan_stops_training(tmp_path):
    stopping = knee_stopping()
    trainer, _ = fit(tmp_path, stopping, [*CURVE[:6], math.nan, *CURVE])
    assert trainer.current_epoch == 7
    assert stopping.stopping_reason == "val/acc was not finite at epoch 7; training stopped."
    assert stopping.knee_epoch == 6
    assert stopping.points[-1] == (7, None)


def test_nan_can_be_left_out(tmp_path):
    values = [*CURVE[:6], math.inf, *CURVE[7:]]
    stopping = knee_stopping(check_finite=False)
    trainer, _ = fit(tmp_path, stopping, values)
    assert (trainer.current_epoch, stopping.knee_epoch) == (PEAK + 3, PEAK)


def test_nothing_but_nan_has_no_knee(tmp_path):
    stopping = knee_stopping()
    fit(tmp_path, stopping, [math.nan])
    assert stopping.knee_epoch is None
    assert stopping.knee_path is None


def test_missing_metric_is_an_error_that_names_the_close_ones(tmp_path):
    stopping = KneeStopping("val/acc2")
    with pytest.raises(
        RuntimeError, match=r"must be a metric that validation logs, got 'val/acc2'. Did you mean 'val/acc'"
    ):
        fit(tmp_path, stopping)


def test_missing_metric_can_be_a_warning(tmp_path):
    with pytest.warns(
        UserWarning, match="must be a metric that validation logs, got 'loss'. Logged metrics: 'val/acc'"
    ):
        trainer, _ = fit(tmp_path, KneeStopping("loss", mode="min", strict=False), max_epochs=2)
    assert trainer.current_epoch == 2


def test_trainer_without_validation_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="must see validations to follow 'val/acc'"):
        fit(tmp_path, knee_stopping(), limit_val_batches=0)


def test_metric_of_shape_one_is_a_number(tmp_path):
    class Shaped(Scripted):
        def log(self, name, value, **options):
            self.trainer.callback_metrics[name] = torch.tensor([value])
            super().log(name, value, **options)

    stopping = knee_stopping()
    quiet_trainer(tmp_path, callbacks=[stopping], max_epochs=2).fit(Shaped(CURVE), Points())
    assert len(stopping.points) == 2


def test_changing_rate_gets_one_warning(tmp_path):
    class Decaying(Scripted):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    trainer = quiet_trainer(tmp_path, callbacks=[knee_stopping()], max_epochs=5)
    with pytest.warns(UserWarning, match="learning rate changed from") as caught:
        trainer.fit(Decaying(CURVE), Points())
    assert sum("learning rate changed" in str(warning.message) for warning in caught) == 1


def test_checkpoints_of_other_callbacks_know_the_epochs_point(tmp_path):
    keeper = ModelCheckpoint(dirpath=tmp_path / "own", save_last=True)
    trainer = quiet_trainer(tmp_path, callbacks=[keeper, knee_stopping()], max_epochs=4)
    trainer.fit(Scripted(CURVE), Points())
    states = torch.load(keeper.last_model_path, weights_only=True)["callbacks"]
    (state,) = [value for key, value in states.items() if key.startswith("KneeStopping")]
    assert [point[0] for point in state["points"]] == [1, 2, 3, 4]


def test_stop_of_another_callback_is_respected(tmp_path):
    early = EarlyStopping("val/acc", patience=1, mode="min")
    stopping = knee_stopping()
    trainer, _ = fit(tmp_path, stopping, callbacks=[early])
    assert trainer.current_epoch == 2
    assert "Training ended at epoch 2" in stopping.stopping_reason


def test_knee_is_logged(tmp_path):
    logger = CSVLogger(tmp_path)
    stopping = knee_stopping()
    fit(tmp_path, stopping, logger=logger)
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "knee/epoch" in rows[0]
    assert "knee/value" in rows[0]
    assert Path(stopping.knee_path).parent == Path(logger.log_dir) / "checkpoints"


def test_folder_can_be_chosen_and_weights_alone_kept(tmp_path):
    stopping = knee_stopping(dirpath=str(tmp_path / "here"), save_weights_only=True)
    fit(tmp_path, stopping)
    assert stopping.knee_path == str(tmp_path / "here" / "knee-epoch=12.ckpt")
    assert "optimizer_states" not in torch.load(stopping.knee_path, weights_only=True)


def test_epochs_that_can_no_longer_be_the_knee_are_deleted_on_the_way(tmp_path):
    kept = []

    class Count(EarlyStopping):
        def on_train_epoch_start(self, trainer, pl_module):
            kept.append(len(list(tmp_path.rglob("*.ckpt"))))

    steep = [1 - math.exp(-0.02 * epoch) for epoch in range(1, 61)]
    fit(tmp_path, knee_stopping(), steep, callbacks=[Count("val/acc", patience=99)], max_epochs=40)
    assert max(kept) < 20


def test_checkpoints_move_with_their_folder(tmp_path):
    fit(tmp_path / "old", knee_stopping(), max_epochs=11)
    (tmp_path / "old").rename(tmp_path / "new")
    again = knee_stopping()
    last = tmp_path / "new" / "checkpoints" / "knee-epoch=11.ckpt"
    fit(tmp_path / "new", again, ckpt_path=str(last))
    assert saved_validations(again.knee_path) == PEAK


def test_state_is_plain_python(tmp_path):
    stopping = knee_stopping()
    fit(tmp_path, stopping, max_epochs=3)
    file = next(tmp_path.rglob("*.ckpt"))
    state = torch.load(file, weights_only=True)["callbacks"][stopping.state_key]
    assert {type(number) for point in state["points"] for number in point} <= {int, float, type(None)}


def test_verbose_says_where_the_knee_is(tmp_path, capsys, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, knee_stopping(verbose=True), max_epochs=2)
    assert "Epoch 2: val/acc = " in caplog.text + capsys.readouterr().err  # as the release of Lightning has it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "up"}, "`mode` must be one of 'max', 'min', got 'up'"),
        ({"patience": -1}, "`patience` must be a number of epochs ≥ 0"),
        ({"curve": "line"}, "`curve` must be one of"),
    ],
    ids=["mode", "patience", "curve"],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        KneeStopping("val/acc", **options)


def test_one_line_is_enough(tmp_path):
    trainer = Trainer(
        callbacks=[KneeStopping(monitor="val/acc", mode="max", patience=10)],
        accelerator="cpu", max_epochs=3, default_root_dir=tmp_path, enable_progress_bar=False, logger=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Scripted(CURVE), Points())
    assert trainer.checkpoint_callback.best_model_path.endswith("knee-epoch=3.ckpt")


def test_other_name_of_lightning(tmp_path):
    """The same callback in a project that imports `pytorch_lightning`."""
    pl = pytest.importorskip("pytorch_lightning")

    class Plain(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return self.layer(batch[0]).pow(2).mean()

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", CURVE[self.current_epoch])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    stopping = knee_stopping()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=50, callbacks=[stopping], logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=str(tmp_path),
    )  # fmt: skip
    data = Points()
    trainer.fit(Plain(), data.train_dataloader(), data.val_dataloader())
    assert (trainer.current_epoch, stopping.knee_epoch) == (PEAK + 3, PEAK)
    assert Path(stopping.knee_path).exists()


@pytest.mark.parametrize("interval", [2, 3], ids=["at-the-end", "before-the-end"])
def test_checkpoints_are_pruned_within_epochs_too(tmp_path, interval):
    """Of four batches, a validation every three never falls on the last one."""
    steep = [1 - math.exp(-0.02 * epoch) for epoch in range(1, 200)]
    trainer, _ = fit(tmp_path, knee_stopping(), steep, val_check_interval=interval, max_epochs=30)
    assert trainer.current_epoch == 30
    assert len(list(tmp_path.rglob("*.ckpt"))) <= 2


def test_resumed_after_a_stop_by_nan_it_trains_no_further(tmp_path):
    values = [*CURVE[:6], math.nan, *CURVE[7:]]
    keeper = lambda: ModelCheckpoint(save_last=True, enable_version_counter=False)  # noqa: E731
    fit(tmp_path, knee_stopping(), values, callbacks=[keeper()])
    again = knee_stopping()
    with pytest.warns(UserWarning, match="exists and is not empty"):
        trainer, _ = fit(
            tmp_path, again, values, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"), callbacks=[keeper()]
        )
    assert trainer.current_epoch == 7
    assert again.stopping_reason == "val/acc was not finite at epoch 7; training stopped."


def test_options_are_those_of_the_rule():
    stopping = KneeStopping("val/acc", patience=4, curve="power", check_finite=False)
    assert stopping.rule == KneeRule(patience=4, curve="power", check_finite=False)
    with pytest.raises(ValueError, match="`KneeStopping` must name options it has, got 'patince'. Did you mean"):
        KneeStopping("val/acc", patince=4)
