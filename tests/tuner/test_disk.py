"""The weights of a search: kept, dropped, damaged, and within the space that was announced."""

import shutil
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_opplan.callbacks.knee_stopping import MAX_CHECKPOINTS
from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal
from lightning_opplan.tuner.disk import weights_size
from lightning_opplan.tuner.loop import EdgeError
from tests.helpers import toy
from tests.helpers.driver import edges_of
from tests.helpers.scripted import Points, Scripted


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_weights_are_trained_again_from_the_parent(tmp_path, searched, damage):
    """The first edge of the path, whose weights a further edge needs."""
    expected = toy.tuner(searched).search()
    folder = tmp_path / "damaged"
    shutil.copytree(searched, folder)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:-2]))  # the two edges into the last state are to come
    for name in ("005", "006"):
        for file in folder.glob(f"edges/{name}_*/outcome.json"):
            file.unlink()
    needed = Journal.of(searched).read()[1].winners["2-1"]
    (weights,) = folder.glob(f"edges/*_{needed.parent}--2-1/weights.ckpt")
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        weights.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    else:
        weights.unlink()
    with pytest.warns(UserWarning, match=f"The weights of {needed} are damaged or gone; the edge is trained again"):
        result = toy.tuner(folder).search()
    assert toy.fingerprint(result, folder) == toy.fingerprint(expected, searched)
    assert [kind for kind, edge in edges_of(folder) if edge == tuple(needed)] == ["edge", "weights"]
    assert weights.read_bytes() == content


def test_damaged_weights_of_the_result_are_trained_again(searched):
    result = toy.tuner(searched).search()
    content = result.weights.read_bytes()
    result.weights.write_bytes(b"")
    with pytest.warns(UserWarning, match="are damaged or gone"):
        assert toy.tuner(searched).search().path == result.path
    assert result.weights.read_bytes() == content


def test_search_keeps_to_the_checkpoints_that_were_announced(tmp_path):
    """A metric that never settles makes every epoch a plausible knee."""
    most = 0

    class Counting(Scripted):
        def __init__(self, lr=0.1):
            super().__init__([0.5 + 0.1 * (-1) ** n for n in range(60)], lr=lr)

        def on_train_epoch_start(self):
            nonlocal most
            most = max(most, len(list(tmp_path.glob("run/edges/*/resume/*.ckpt"))))

    tuner = toy.tuner(
        tmp_path / "run", model=Counting, data=Points, monitor="val/acc", knee={"patience": 50},
        graph=toy.TransitionGraph({"a": {"model.lr": 0.1}}, [("start", "a")]),
        trainer=partial(Trainer, accelerator="cpu", logger=False, max_epochs=40),
    )  # fmt: skip
    tuner.search()
    assert most == MAX_CHECKPOINTS


def test_losing_weights_go_as_soon_as_they_have_lost(tmp_path):
    kept = []

    class Watching(toy.Classifier):
        def on_train_start(self):
            kept.append({file.parent.name.partition("_")[2] for file in tmp_path.glob("edges/*/weights.ckpt")})

    result = toy.tuner(tmp_path, model=Watching).search()
    winner = max((Edge("start", "2-1"), Edge("1-1", "2-1")), key=lambda edge: result.outcomes[edge].value)
    loser = next(edge for edge in (Edge("start", "2-1"), Edge("1-1", "2-1")) if edge != winner)
    assert f"{loser.parent}--2-1" not in kept[-1]
    assert all(len(names) <= len(toy.graph().states) - 1 for names in kept)


def test_weights_that_cannot_be_trained_again_end_the_search(searched):
    toy.tuner(searched).search().weights.unlink()

    class Diverging(toy.Classifier):
        def log(self, name, value, **options):
            super().log(name, value * float("nan"), **options)

    Diverging.__module__, Diverging.__qualname__ = toy.Classifier.__module__, toy.Classifier.__qualname__

    with (
        pytest.warns(UserWarning, match="are damaged or gone"),
        pytest.raises(EdgeError, match="trained again for its lost weights, it diverged"),
    ):
        toy.tuner(searched, model=Diverging).search()


def test_lazy_model_is_searched_without_an_estimate_of_its_disk(tmp_path, capsys):
    class Lazy(toy.Classifier):
        def __init__(self, lr=0.1):
            super().__init__(lr)
            self.network = torch.nn.LazyLinear(2)

    tuner = toy.tuner(tmp_path, model=Lazy, graph=toy.graph((0.1,), (8,)), progress=True)
    assert weights_size(tuner.spec.recipe, {}) is None
    assert tuner.search().is_complete
    assert "Disk:" not in capsys.readouterr().out
