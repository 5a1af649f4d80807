"""What Lightning's tests expect of `EarlyStopping` and `ModelCheckpoint`, of `KneeStopping`, one row each."""

import math
import pickle
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import AsyncCheckpointIO
from torch.utils.data import DataLoader, TensorDataset

from lightning_opplan import KneeStopping
from tests.helpers.scripted import Points, Scripted, quiet_trainer, rise_and_fall

PEAK = 12
CURVE = rise_and_fall(PEAK)
ROWS = {}


def expect(sentence):
    """Add a row to the table."""

    def add(check):
        assert sentence not in ROWS
        ROWS[sentence] = check
        return check

    return add


def knee(**options):
    return KneeStopping("val/acc", **{"mode": "max", "patience": 3, **options})


def fit(folder, *callbacks, values=CURVE, model=None, ckpt_path=None, metric="val/acc", **options):
    trainer = quiet_trainer(folder, callbacks=list(callbacks), **options)
    trainer.fit(model or Scripted(values, metric), Points(), ckpt_path=ckpt_path)
    return trainer


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*.ckpt"))


def epoch_of(file):
    return int(torch.load(file, weights_only=True)["state_dict"]["validations"])


# EarlyStopping


@expect("it stops a patience after the best epoch")
def _(folder):
    assert fit(folder, knee()).current_epoch == PEAK + 3


@expect("without anything better to come it stops as soon as it may")
def _(folder):
    assert fit(folder, knee(min_points=5, patience=0), values=[1 - 0.01 * n**2 for n in range(40)]).current_epoch == 5


@expect("a metric that never changes is no progress")
def _(folder):
    assert fit(folder, knee(patience=10), values=[0.1]).current_epoch == 10


@expect("mode min looks for the lowest")
def _(folder):
    stopping = knee(mode="min")
    assert fit(folder, stopping, values=[-value for value in CURVE]).current_epoch == PEAK + 3
    assert stopping.knee_epoch == PEAK


@expect("an unknown mode is refused")
def _(folder):
    with pytest.raises(ValueError, match="`mode` must be one of"):
        knee(mode="unknown_option")


@expect("a metric that is not logged is an error that names those that are")
def _(folder):
    with pytest.raises(RuntimeError, match="Did you mean 'val/acc'"):
        fit(folder, KneeStopping("val/accc"))


@expect("strict=False makes a warning of it")
def _(folder):
    with pytest.warns(UserWarning, match="must be a metric that validation logs"):
        assert fit(folder, KneeStopping("other", strict=False), max_epochs=2).current_epoch == 2


@expect("NaN and infinity stop at once with check_finite")
def _(folder):
    for name, value in (("nan", math.nan), ("inf", math.inf)):
        stopping = knee()
        assert fit(folder / name, stopping, values=[0.1, 0.2, value, 0.3]).current_epoch == 3
        assert "not finite" in stopping.stopping_reason


@expect("NaN is passed over without check_finite")
def _(folder):
    values = [*CURVE[:5], math.nan, *CURVE[6:]]
    assert fit(folder, knee(check_finite=False), values=values).current_epoch == PEAK + 3


@expect("stopping_threshold stops at the first value that is as good, and keeps its weights")
def _(folder):
    stopping = knee(stopping_threshold=0.3)
    trainer = fit(folder, stopping, values=[0.1, 0.2, 0.3, 0.4])
    assert (trainer.current_epoch, stopping.knee_epoch, epoch_of(stopping.knee_path)) == (3, 3, 3)
    assert "as good as the threshold of 0.3" in stopping.stopping_reason


@expect("stopping_threshold of a minimum is reached from above")
def _(folder):
    assert fit(folder, knee(mode="min", stopping_threshold=0.3), values=[0.5, 0.4, 0.29]).current_epoch == 3


@expect("divergence_threshold stops at the first value that is worse")
def _(folder):
    stopping = knee(mode="min", divergence_threshold=5.0)
    assert fit(folder, stopping, values=[0.9, 0.8, 9.0, 0.7]).current_epoch == 3
    assert stopping.knee_epoch == 2
    assert "worse than the threshold of 5" in stopping.stopping_reason


@expect("min_epochs comes before the stop")
def _(folder):
    assert fit(folder, knee(), min_epochs=20).current_epoch == 20


@expect("min_steps comes before the stop")
def _(folder):
    assert fit(folder, knee(), min_steps=4 * 18).current_epoch == 18


@expect("max_epochs ends training where no stop came")
def _(folder):
    stopping = knee()
    assert fit(folder, stopping, max_epochs=5).current_epoch == 5
    assert "before a knee" in stopping.stopping_reason


@expect("max_steps ends training where no stop came")
def _(folder):
    assert fit(folder, knee(), max_steps=4 * 5).current_epoch == 5


@expect("validation every other epoch counts epochs")
def _(folder):
    stopping = knee(patience=4)
    assert fit(folder, stopping, check_val_every_n_epoch=2).current_epoch == 2 * PEAK + 4


@expect("several validations in an epoch may end it halfway")
def _(folder):
    trainer = fit(folder, knee(patience=1), val_check_interval=0.5)
    assert trainer.global_step == 2 * (PEAK + 2)


@expect("the check at the end of training epochs is refused, as validations decide")
def _(folder):
    assert knee(check_on_train_epoch_end=False).monitor == "val/acc"
    with pytest.raises(ValueError, match="must be left out: `KneeStopping` looks at every validation"):
        knee(check_on_train_epoch_end=True)


@expect("a misspelt argument is named")
def _(folder):
    with pytest.raises(ValueError, match="'patince'. Did you mean"):
        knee(patince=3)


@expect("the sanity check is no validation")
def _(folder):
    stopping = knee()
    fit(folder, stopping, num_sanity_val_steps=2, max_epochs=2)
    assert len(stopping.points) == 2


@expect("several of them, the first that asks stops training")
def _(folder):
    class Two(Scripted):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/other", 1.0)

    other = KneeStopping("val/other", mode="max", patience=10)
    assert fit(folder, knee(), other, model=Two(CURVE)).current_epoch == 10


@expect("it says why it stopped")
def _(folder):
    stopping = knee()
    fit(folder, stopping)
    assert stopping.stopping_reason.startswith("val/acc peaked at epoch 12")


@expect("fast_dev_run passes through")
def _(folder):
    fit(folder, knee(), fast_dev_run=2)
    assert files(folder) == []


@expect("it can be pickled and copied before and after a fit")
def _(folder):
    stopping = knee()
    deepcopy(pickle.loads(pickle.dumps(stopping)))
    fit(folder, stopping, max_epochs=3)
    assert pickle.loads(pickle.dumps(stopping)).knee_epoch == stopping.knee_epoch
    assert deepcopy(stopping).best_model_path == stopping.best_model_path


@expect("resumed, it knows what it has seen")
def _(folder):
    fit(folder, knee(), max_epochs=10)
    again = knee()
    trainer = fit(folder, again, ckpt_path=str(folder / "checkpoints" / "knee-epoch=10.ckpt"))
    assert (trainer.current_epoch, again.knee_epoch, len(again.points)) == (PEAK + 3, PEAK, PEAK + 3)


@expect("the same object in the next Trainer begins anew")
def _(folder):
    stopping = knee()
    for fold in range(3):
        assert fit(folder / str(fold), stopping).current_epoch == PEAK + 3
        assert stopping.best_model_path.startswith(str(folder / str(fold)))
        assert len(stopping.points) == PEAK + 3


@expect("values of any size decide alike")
def _(folder):
    for scale in (1e-12, 1e12):
        stopping = knee()
        fit(folder / str(scale), stopping, values=[scale * value for value in CURVE])
        assert stopping.knee_epoch == PEAK


# ModelCheckpoint


@expect("best_model_path is the best epoch's, with its weights, and no other file is left")
def _(folder):
    stopping = knee()
    trainer = fit(folder, stopping)
    assert trainer.checkpoint_callback.best_model_path == stopping.knee_path
    assert epoch_of(stopping.best_model_path) == PEAK
    assert files(folder) == [f"checkpoints/knee-epoch={PEAK}.ckpt"]


@expect("scores and paths have ModelCheckpoint's names")
def _(folder):
    stopping = knee()
    fit(folder, stopping, max_epochs=3)
    assert float(stopping.best_model_score) == pytest.approx(stopping.knee_value)
    assert float(stopping.current_score) == pytest.approx(CURVE[2])
    assert epoch_of(stopping.last_model_path) == 3
    assert {path: float(score) for path, score in stopping.best_k_models.items()} == {
        stopping.best_model_path: pytest.approx(CURVE[2])
    }
    assert ModelCheckpoint().save_top_k == stopping.save_top_k


@expect("best_model_path can be set, as strategies do that fit in other processes")
def _(folder):
    stopping = knee()
    stopping.best_model_path = "elsewhere.ckpt"
    assert stopping.best_model_path == "elsewhere.ckpt"
    fit(folder, stopping, max_epochs=2)
    assert stopping.best_model_path != "elsewhere.ckpt"


@expect("before a fit there is no best")
def _(folder):
    stopping = knee()
    assert (stopping.best_model_path, stopping.best_model_score, stopping.last_model_path) == ("", None, "")
    assert (stopping.best_k_models, stopping.current_score) == ({}, None)


@expect("folders are ModelCheckpoint's, whatever the logger")
def _(folder):
    class Named(DummyLogger):
        save_dir, name, version = str(folder / "logs"), "project", "abc"

        def log_metrics(self, *_, **__):
            pass

    makers = {
        "csv": lambda: CSVLogger(folder / "csv"),
        "named": lambda: CSVLogger(folder / "csv", name="run", version="v"),
        "tensorboard": lambda: TensorBoardLogger(folder / "tb", sub_dir="sub"),
        "other": Named,
        "none": lambda: False,
    }
    for name, make in makers.items():
        stopping, keeper = knee(), ModelCheckpoint()
        fit(folder / "root" / name, stopping, keeper, logger=make(), max_epochs=1)
        assert Path(stopping.best_model_path).parent == Path(keeper.best_model_path).parent


@expect("a folder of one's own, with ~ and links")
def _(folder):
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setenv("HOME", str(folder))
        stopping = knee(dirpath="~/mine")
        fit(folder / "root", stopping, max_epochs=1)
    assert stopping.best_model_path == str(folder / "mine" / "knee-epoch=1.ckpt")


@expect("a second run in a folder versions its names and leaves the first one's files")
def _(folder):
    first, second = knee(), knee()
    fit(folder, first)
    fit(folder, second)
    assert Path(second.best_model_path).name == f"knee-epoch={PEAK}-v1.ckpt"
    assert files(folder) == sorted(str(Path(s.best_model_path).relative_to(folder)) for s in (first, second))


@expect("two on two metrics keep their files apart")
def _(folder):
    class Two(Scripted):
        def on_validation_epoch_end(self):
            super().on_validation_epoch_end()
            self.log("val/loss", -float(CURVE[min(int(self.validations) - 1, 99)]) if self.validations else 0.0)

    one, other = knee(), KneeStopping("val/loss", mode="min", patience=3)
    fit(folder, one, other, model=Two(CURVE))
    assert epoch_of(one.best_model_path) == epoch_of(other.best_model_path) == PEAK
    assert len(files(folder)) == 2


@expect("what a fit resumes from is not deleted, wherever it lies")
def _(folder):
    fit(folder / "a", knee(), max_epochs=8)
    source = folder / "a" / "checkpoints" / "knee-epoch=8.ckpt"
    for place in ("a", "b"):
        fit(folder / place, knee(), ckpt_path=str(source))
        assert source.exists()
    assert len(files(folder / "b")) == 1


@expect("files of others in the folder stay")
def _(folder):
    theirs = folder / "checkpoints" / "knee-epoch=1.ckpt"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    fit(folder, knee())
    assert theirs.read_text() == "precious"


@expect("weights alone can be kept")
def _(folder):
    stopping = knee(save_weights_only=True)
    fit(folder, stopping, max_epochs=2)
    assert "optimizer_states" not in torch.load(stopping.best_model_path, weights_only=True)


@expect("loggers are told of every checkpoint")
def _(folder):
    told = []

    class Told(DummyLogger):
        save_dir, name, version = str(folder), "x", 0

        def log_metrics(self, *_, **__):
            pass

        def after_save_checkpoint(self, callback):
            told.append((Path(callback.last_model_path).name, callback.monitor, callback.mode))

    fit(folder, knee(), logger=Told(), max_epochs=2)
    assert told == [("knee-epoch=1.ckpt", "val/acc", "max"), ("knee-epoch=2.ckpt", "val/acc", "max")]


@expect("AsyncCheckpointIO saves it")
def _(folder):
    stopping = knee()
    fit(folder, stopping, plugins=[AsyncCheckpointIO()], max_epochs=4)
    assert epoch_of(stopping.best_model_path) == 4


@expect("a remote folder is one, and what is there is deleted there")
def _(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    stopping = knee(dirpath=f"memory://bucket{folder}")
    trainer = fit(folder, stopping)
    assert stopping.best_model_path == f"memory://bucket{folder}/knee-epoch={PEAK}.ckpt"
    assert len(memory.glob(f"memory://bucket{folder}/*.ckpt")) == 1
    trainer.test(Scripted(CURVE), Points(), ckpt_path="best", verbose=False)


@expect("beside a ModelCheckpoint of the user's both keep their own")
def _(folder):
    stopping, keeper = knee(), ModelCheckpoint(monitor="val/acc", mode="max", save_last=True)
    trainer = fit(folder, stopping, keeper)
    assert trainer.checkpoint_callback is stopping
    assert epoch_of(stopping.best_model_path) == epoch_of(keeper.best_model_path) == PEAK


@expect("no default ModelCheckpoint is added, and enable_checkpointing=False is refused by Lightning")
def _(folder):
    trainer = quiet_trainer(folder, callbacks=[knee()])
    assert len(trainer.checkpoint_callbacks) == 1
    with pytest.raises(MisconfigurationException, match="enable_checkpointing=False"):
        quiet_trainer(folder, callbacks=[knee()], enable_checkpointing=False)


@expect("returned by configure_callbacks it says that `best` is another's")
def _(folder):
    class Configured(Scripted):
        def configure_callbacks(self):
            return [knee()]

    with pytest.warns(UserWarning, match='`ckpt_path="best"` means the best of ModelCheckpoint'):
        fit(folder, model=Configured(CURVE), max_epochs=2)


@expect("a checkpoint on an exception finds it in order")
def _(folder):
    class Fails(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (3, 2):
                raise RuntimeError("stop here")

    def keeper(name):
        return ModelCheckpoint(folder / name, "stopped", save_on_exception=True, every_n_epochs=90)

    with pytest.raises(RuntimeError, match="stop here"):
        fit(folder, knee(), keeper("theirs"), Fails())
    again = knee()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's, of their folder and of an epoch that is half done
        fit(folder, again, keeper("theirs"), ckpt_path=str(folder / "theirs" / "stopped.ckpt"))
    assert again.knee_epoch == PEAK


@expect("manual optimisation whose steps Lightning does not count keeps every validation")
def _(folder):
    class Manual(Scripted):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            self.layer(batch[0]).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    stopping = knee()
    trainer = fit(folder, stopping, model=Manual(CURVE))
    assert (trainer.global_step, trainer.current_epoch, stopping.knee_epoch) == (0, PEAK + 3, PEAK)


@expect("the knee is logged at the metric's own step, with any number of optimizers")
def _(folder):
    class Two(Scripted):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                self.layer(batch[0]).pow(2).mean().backward()
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(2)]

    for name, model in (("one", Scripted(CURVE)), ("two", Two(CURVE))):
        logger = CSVLogger(folder / name)
        fit(folder / name, knee(), model=model, logger=logger, max_epochs=3)
        lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
        rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
        steps = [row["step"] for row in rows if row["val/acc"]]
        assert len(steps) == 3
        assert [row["step"] for row in rows if row["knee/epoch"]] == steps


@expect("at most 20 checkpoints are kept at a time, unless more are asked for")
def _(folder):
    counts = []

    class Count(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            counts.append(len(files(folder)))

    noise = torch.Generator().manual_seed(0)
    values = (0.5 + 0.1 * torch.rand(60, generator=noise)).tolist()
    fit(folder, knee(patience=90), Count(), values=values, max_epochs=60)
    assert 15 < max(counts) <= 21


@expect("a name like a loss without a mode gets a warning, as does a metric that only falls")
def _(folder):
    with pytest.warns(UserWarning, match="sounds as if lower were better"):
        fit(folder, KneeStopping("val/loss"), metric="val/loss", max_epochs=1)
    falling = [1 / n for n in range(1, 40)]
    with pytest.warns(UserWarning, match="was best at its first validation"):
        fit(folder / "falls", KneeStopping("val/score"), values=falling, metric="val/score")
    fit(folder / "given", KneeStopping("val/loss", mode="max"), metric="val/loss", max_epochs=1)


@expect("the epoch that is told is that of the weights that are kept")
def _(folder):
    values = [0.3 + 0.7 * math.exp(-n / 8) + 0.0003 * n**2 for n in range(1, 60)]
    values[11] = 5.0
    for name, options in {"outlier": {}, "delta": {"min_delta": 0.02}, "few": {"max_checkpoints": 1}}.items():
        stopping = knee(mode="min", patience=10, **options)
        fit(folder / name, stopping, values=values)
        assert epoch_of(stopping.best_model_path) == stopping.knee_epoch


@expect("the learning rate may be on a schedule, with a warning")
def _(folder):
    class Decaying(Scripted):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    with pytest.warns(UserWarning, match="learning rate changed"):
        fit(folder, knee(), model=Decaying(CURVE), max_epochs=3)


@expect("EarlyStopping beside it may stop first")
def _(folder):
    early = EarlyStopping("val/acc", patience=1, mode="min")
    assert fit(folder, knee(), early).current_epoch == 2


@expect("validate, test and predict pass by")
def _(folder):
    class Predicting(Scripted):
        def predict_step(self, batch, batch_idx):
            return self.layer(batch[0])

    class Data(Points):
        def predict_dataloader(self):
            return DataLoader(TensorDataset(torch.zeros(2, 1)), batch_size=2)

    stopping = knee()
    trainer = quiet_trainer(folder, callbacks=[stopping], max_epochs=2)
    model: LightningModule = Predicting(CURVE)
    trainer.fit(model, Data())
    before = stopping.points
    trainer.validate(model, Data(), verbose=False)
    trainer.test(model, Data(), verbose=False)
    trainer.predict(model, Data())
    assert stopping.points == before


@pytest.mark.parametrize("sentence", ROWS)
def test_it_behaves_as_lightning_users_expect(tmp_path, sentence):
    ROWS[sentence](tmp_path)
