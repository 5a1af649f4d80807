import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lightning_opplan import KneeStopping
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.tuner.follow import follow_path
from tests.helpers import toy
from tests.helpers.scripted import quiet_trainer


def path(*steps):
    return OptimizationPath(
        steps=tuple(PathStep(state=state, epochs=epochs, setting=setting) for state, epochs, setting in steps)
    )


TWO = path(("a", 3, {"model.lr": 0.1}), ("skipped", 0, {"model.lr": 0.5}), ("b", 2, {"model.lr": 0.01}))


def follow(folder, steps=TWO, **options):
    recipe = toy.tuner(folder, model=options.pop("model", toy.Classifier)).spec.recipe
    return follow_path(steps, recipe, dirpath=folder, progress=False, **options)


def weights(file):
    return torch.load(file, weights_only=True)["state_dict"]


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_trains_every_state_for_its_epochs(tmp_path):
    trained = []

    class Counting(toy.Classifier):
        def on_train_epoch_start(self):
            trained.append(self.hparams.lr)

        def validation_step(self, batch, batch_idx):
            pytest.fail("validated while following")

    file = follow(tmp_path, model=Counting)
    assert trained == [0.1] * 3 + [0.01] * 2
    assert file == tmp_path / "weights.ckpt"
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "01_a",
        "03_b",
        "experiment.json",
        "followed.yaml",
        "weights.ckpt",
    }


def test_weights_are_carried_along(tmp_path):
    follow(tmp_path)
    first = follow(tmp_path / "first", path(("a", 3, {"model.lr": 0.1})))
    assert equal(weights(first), weights(tmp_path / "01_a" / "weights.ckpt"))
    assert not equal(weights(first), weights(tmp_path / "weights.ckpt"))


def test_interrupted_following_ends_the_same(tmp_path):
    whole = weights(follow(tmp_path / "whole"))
    count = 0

    class Interrupting(toy.Classifier):
        def on_train_epoch_start(self):
            nonlocal count
            count += 1
            if count % 3 == 0:
                raise ConnectionError("interrupted")

    for _ in range(10):
        try:
            file = follow(tmp_path / "parts", model=Interrupting)
            break
        except ConnectionError:
            pass
    assert equal(weights(file), whole)


def test_finished_following_trains_nothing(tmp_path):
    first = weights(follow(tmp_path))
    assert equal(weights(follow(tmp_path)), first)


def test_folder_of_another_configuration_is_refused(tmp_path):
    follow(tmp_path)
    with pytest.raises(ValueError, match="got .*, where `seed` was 0 and is now 4"):
        follow(tmp_path, seed=4)


def test_callbacks_that_watch_validation_are_left_out(tmp_path):
    def trainer(callbacks, **options):
        watching = [EarlyStopping("val/score"), KneeStopping("val/score")]
        return quiet_trainer(tmp_path, callbacks=[*watching, *callbacks], **options)

    recipe = toy.tuner(tmp_path, trainer=trainer).spec.recipe
    assert follow_path(TWO, recipe, dirpath=tmp_path / "run", progress=False).exists()


def test_fractions_of_epochs(tmp_path):
    steps = []

    class Counting(toy.Classifier):
        def on_train_batch_end(self, *args):
            steps.append(self.trainer.global_step)

    follow(tmp_path, path(("a", 1.5, {"data.batch_size": 16})), model=Counting)
    assert len(steps) == 15  # ten batches an epoch


def test_setting_on_top_reaches_every_state(tmp_path):
    rates = []

    class Noting(toy.Classifier):
        def on_train_start(self):
            rates.append(self.hparams.lr)

    follow(tmp_path, setting={"model.lr": 0.003}, model=Noting)
    assert rates == [0.003, 0.003]


def test_folder_of_another_path_is_refused(tmp_path):
    follow(tmp_path)
    with pytest.raises(ValueError, match="which holds the training along a × 3 → skipped × 0 → b × 2"):
        follow(tmp_path, path(("a", 4, {"model.lr": 0.1})))


def test_path_without_epochs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must train for at least one epoch, got a × 0"):
        follow(tmp_path, path(("a", 0, {})))


def test_unknown_key_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"got 'model.rate'"):
        follow(tmp_path, path(("a", 1, {"model.rate": 1})))
