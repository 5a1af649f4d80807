"""Score files and their fusion, against sums made by hand."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from scipy.special import softmax
from torch.utils.data import DataLoader, Dataset

from lightning_opplan.callbacks import ScoreWriter
from lightning_opplan.cli import main
from lightning_opplan.data.lists import Video
from lightning_opplan.scores import Scores, ScoresError, best_weights, fused
from tests.helpers.scripted import PROJECT, quiet_trainer

DRAW = np.random.default_rng(0)
IDS = tuple(f"video {number}" for number in range(40))
LABELS = DRAW.integers(0, 7, 40)


def scores(strength=1.0, *, ids=IDS, labels=LABELS, classes=7, seed=0, source="a"):
    values = np.random.default_rng(seed).normal(size=(len(ids), classes))
    values[np.arange(len(ids)), labels] += strength
    return Scores(ids=tuple(ids), scores=values, labels=np.array(labels), source=source)


def test_file_gives_back_what_was_written(tmp_path):
    before = scores()
    after = Scores.load(before.save(tmp_path / "a.npz"))
    assert (after.ids, after.source) == (before.ids, "a")
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-6)
    np.testing.assert_array_equal(after.labels, LABELS)


def test_fusion_is_the_mean_of_the_softmax_scores_by_video():
    a, b = scores(), scores(seed=1)
    order = np.random.default_rng(2).permutation(40)
    other = Scores(ids=tuple(IDS[i] for i in order), scores=b.scores[order], labels=LABELS[order])
    fusion = fused([a, other], [3, 1])
    by_hand = 0.75 * softmax(a.scores, 1) + 0.25 * softmax(b.scores, 1)
    np.testing.assert_allclose(fusion.scores, by_hand, atol=1e-6)
    assert fusion.accuracy(1) == np.mean(by_hand.argmax(1) == LABELS)
    top = np.argsort(-by_hand, 1)[:, :5]
    assert fusion.accuracy(5) == np.mean([label in row for label, row in zip(LABELS, top, strict=True)])
    again = fused([fusion, fusion])
    np.testing.assert_allclose(again.scores, by_hand, atol=1e-12)  # a fusion may be fused


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            scores(ids=IDS[1:], labels=LABELS[1:]),
            "same videos, but number 2 differs from the first in 1, such as 'video 0'",
        ),
        (scores(classes=8), "same classes, but number 2 has 8 and the first 7"),
        (scores(labels=(LABELS + 1) % 7), "same labels, but number 2 has another one of 'video 0'"),
    ],
    ids=["videos", "classes", "labels"],
)
def test_what_does_not_belong_together_is_refused(other, sentence):
    with pytest.raises(ScoresError, match=sentence):
        fused([scores(), other])


def test_equal_scores_are_no_hit_for_every_label():
    flat = Scores(ids=IDS, scores=np.zeros((40, 7)), labels=LABELS)
    assert [flat.accuracy(k) for k in (1, 7)] == [np.mean(LABELS == 0), 1.0]


def test_weights_are_chosen_where_they_are_best():
    good, noise = scores(3.0), scores(0.0, seed=5)
    weights = best_weights([good, noise])
    assert weights[0] > weights[1]
    every = [(step / 10, 1 - step / 10) for step in range(11)]
    assert fused([good, noise], weights).accuracy(1) == max(fused([good, noise], each).accuracy(1) for each in every)
    assert best_weights([good, good]) == (0.5, 0.5)
    with pytest.raises(ScoresError, match="got some without"):
        best_weights([good, scores(labels=LABELS - 7)])


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ScoresError, match="a.npz: is not a score file"):
        Scores.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", ids=np.array([{}], dtype=object))
    with pytest.raises(ScoresError, match="b.npz: is not a score file"):
        Scores.load(tmp_path / "b.npz")


def predict_words(folder, *, val_size):
    data = {
        "root": str(folder / "videos"), "num_train": 2, "num_test": 1, "clip_length": 16, "short_side": [32, 32],
        "crop_size": 32, "num_test_clips": 2, "num_test_crops": 1, "val_size": val_size, "flip": False,
    }  # fmt: skip
    return [
        "predict", "--seed_everything", "1", "--model", "lightning_opplan.VideoClassifier", "--model.network",
        "dg_p3d_tiny", "--model.num_classes", "8", "--data", "lightning_opplan.data.DemoDataModule",
        "--data.init_args", json.dumps(data), "--trainer.accelerator", "cpu", "--trainer.logger", "false",
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Scores of two samplings of small clips, by the command."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["opplan"])
        patch.chdir(folder)
        words = predict_words(folder, val_size=0.5)
        for sampling in ("consecutive", "uniform"):
            for split in ("test", "val"):
                cli = main(
                    [
                        *words,
                        "--data.init_args.sampling",
                        sampling,
                        "--scores",
                        f"{sampling}-{split}.npz",
                        "--split",
                        split,
                    ]
                )
                if (sampling, split) == ("uniform", "test"):
                    outputs = torch.cat(cli.trainer.predict_loop.predictions)
    return folder, outputs


@pytest.mark.slow
def test_prediction_writes_its_scores_with_names_and_labels(scored):
    folder, outputs = scored
    found = Scores.load(folder / "uniform-test.npz")
    assert len(found.ids) == 8
    assert found.ids[0].startswith("test")
    assert sorted(found.labels) == list(range(8))
    np.testing.assert_allclose(found.scores, outputs.numpy(), atol=1e-6)
    assert len(Scores.load(folder / "uniform-val.npz").ids) == 8


@pytest.mark.process
def test_two_processes_write_the_file_of_one(tmp_path):
    words = predict_words(tmp_path, val_size=5)  # an odd number: one process gets a video twice
    for devices, strategy in (("1", "auto"), ("2", "ddp")):
        words += ["--trainer.devices", devices, "--trainer.strategy", strategy]
        command = [sys.executable, "-m", "lightning_opplan", *words, "--split", "val", "--scores", f"{devices}.npz"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert result.returncode == 0, result.stderr[-3000:]
    one, two = Scores.load(tmp_path / "1.npz"), Scores.load(tmp_path / "2.npz")
    assert len(one.ids) == 5
    assert (one.ids, one.source) == (two.ids, two.source)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_allclose(one.scores, two.scores, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_fusion_by_the_command(scored, monkeypatch, capsys):
    folder, _ = scored
    monkeypatch.setattr(sys, "argv", ["opplan"])
    monkeypatch.chdir(folder)
    names = ["consecutive-test.npz", "uniform-test.npz"]
    main(["fuse", *names, "--validation", "consecutive-val.npz", "uniform-val.npz", "--out", "fused.npz"])
    out = capsys.readouterr().out
    assert "fused" in out
    assert "top-1" in out
    assert Scores.load("fused.npz").is_probability
    with pytest.raises(SystemExit):
        main(["fuse", "consecutive-test.npz", "consecutive-val.npz"])
    assert "opplan: All files must have the same videos" in capsys.readouterr().err


def test_a_file_of_ids_scores_and_labels_alone_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.array(["x"]), scores=np.zeros((1, 2)), labels=np.array([1]))
    assert not Scores.load(tmp_path / "a.npz").is_probability


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ScoresError, match="a.npz: is not a score file"):
        Scores.load(tmp_path / "a.npz")


class Listed(Dataset):
    """Samples whose scores are their number; that of a broken one is another's."""

    def __init__(self, names, broken=()):
        self.videos = [Video(path=name, name=name, label=0) for name in names]
        self.broken = broken

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        return torch.tensor([float(index), 0.0]), 0


class Giving(LightningModule):
    def predict_step(self, batch, batch_idx):
        return batch[0]


def written_scores(tmp_path, dataset):
    file = tmp_path / "scores.npz"
    trainer = quiet_trainer(tmp_path, callbacks=[ScoreWriter(file)])
    trainer.predict(Giving(), DataLoader(dataset, batch_size=2))
    return Scores.load(file)


def test_a_broken_video_has_no_scores_of_another(tmp_path):
    found = written_scores(tmp_path, Listed("abcd", broken=[2]))
    assert (found.ids, found.scores[:, 0].tolist()) == (("a", "b", "d"), [0.0, 1.0, 3.0])


def test_a_video_that_is_listed_twice_is_written_once(tmp_path):
    found = written_scores(tmp_path, Listed("abca"))
    assert (found.ids, found.scores[:, 0].tolist()) == (("a", "b", "c"), [0.0, 1.0, 2.0])
