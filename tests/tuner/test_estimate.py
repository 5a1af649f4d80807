from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_opplan.planning.graph import Axis
from lightning_opplan.planning.hand_tuned import hand_tuned_trainings
from lightning_opplan.planning.journal import Journal
from lightning_opplan.tuner.estimate import estimate_cost, measure_state
from tests.helpers import budgeted, toy

AXES = [
    Axis("batch", [{"data.batch_size": size} for size in (8, 32)], reversible=True),
    Axis("rate", [{"model.lr": rate} for rate in (0.1, 0.01)]),
]


def test_a_few_batches_of_a_state_are_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batches = []
    step = toy.Classifier.training_step
    monkeypatch.setattr(toy.Classifier, "training_step", lambda self, *args: batches.append(1) or step(self, *args))
    cost = measure_state(toy.tuner(tmp_path).spec.recipe, {"data.batch_size": 8})
    assert (cost.train_batches, cost.val_batches, cost.max_epochs, cost.devices) == (20, 1, 12, 1)
    assert cost.clip_frames == 160
    assert cost.weights == 4 * (2 * 8 + 8 + 8 * 2 + 2)
    assert cost.train_seconds > 0
    assert cost.epoch_seconds == pytest.approx(20 * cost.train_seconds + cost.val_seconds)
    assert len(batches) == 7
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_estimate_adds_up(tmp_path):
    graph = toy.graph()
    trainings = hand_tuned_trainings(axes=AXES, epochs=[6, 12])
    cost = estimate_cost(toy.tuner(tmp_path), trainings=trainings)
    assert cost.epochs == 12  # max_epochs
    expected = sum(12 * cost.states[edge.child].epoch_seconds for edge in graph.edges) / 3600
    assert cost.hours == pytest.approx(expected)
    assert cost.wall_hours[1] == pytest.approx(expected)
    assert cost.critical_hours <= cost.wall_hours[max(cost.wall_hours)] <= expected
    assert cost.clip_frames == 12 * 160 * len(graph.edges)
    assert cost.peak_disk[0] < cost.peak_disk[1]
    assert cost.grid_trainings == 8
    slowest = max(state.epoch_seconds for state in cost.states.values())
    quickest = min(state.epoch_seconds for state in cost.states.values())
    assert 72 * quickest <= 3600 * cost.grid_hours <= 72 * slowest  # 4 trainings of 6 epochs, 4 of 12


def test_estimate_of_a_beam_counts_every_way(tmp_path):
    cost = estimate_cost(toy.tuner(tmp_path, beam=2))
    assert cost.num_edges == len(cost.edges) == 10  # of 7 in the graph
    assert cost.clip_frames == 12 * 160 * 10
    assert cost.wall_hours[1] == pytest.approx(cost.hours)


def test_estimate_of_a_search_under_way_goes_by_what_it_took(searched, tmp_path):
    journal = Journal.of(tmp_path)
    plan, whole = Journal.of(searched).read()
    journal.open(plan)
    some = list(whole.outcomes.values())[:3]
    for outcome in some:
        journal.append(outcome)
    cost = estimate_cost(toy.tuner(tmp_path))
    assert cost.is_known
    assert cost.epochs == pytest.approx(sum(outcome.epochs_run for outcome in some) / 3)
    assert set(cost.edges) == set(toy.graph().edges) - {outcome.edge for outcome in some}
    paused = replace(whole.outcomes[cost.edges[0]], is_paused=True, epochs_run=cost.epochs / 2)
    journal.append(paused)
    half = estimate_cost(toy.tuner(tmp_path))
    assert half.clip_frames == pytest.approx(cost.clip_frames - 160 * cost.epochs / 2)
    assert half.peak_disk[0] > cost.peak_disk[0]
    assert estimate_cost(toy.tuner(searched)).hours == 0


def test_budget_of_epochs_bounds_the_estimate(tmp_path):
    assert estimate_cost(toy.tuner(tmp_path, max_epochs_per_edge=4)).epochs == 4


def test_half_of_the_devices_take_twice_as_long(tmp_path, monkeypatch):
    costs = {}
    monkeypatch.setattr(
        "lightning_opplan.tuner.estimate.measure_state",
        lambda recipe, setting: costs.setdefault(0, measure_state(recipe, setting)),
    )
    whole = estimate_cost(toy.tuner(tmp_path))
    monkeypatch.setattr("lightning_opplan.tuner.estimate.share_of_devices", lambda *_: 0.5)
    half = estimate_cost(toy.tuner(tmp_path))
    assert half.wall_hours[1] == pytest.approx(2 * whole.wall_hours[1])
    assert half.hours == whole.hours
    assert half.width == 2


def test_limits_of_the_trainer_hold_in_the_estimate(tmp_path):
    trainer = partial(
        Trainer, accelerator="cpu", logger=False, limit_train_batches=0.5, limit_val_batches=1, max_epochs=3
    )
    cost = measure_state(toy.tuner(tmp_path, trainer=trainer).spec.recipe, {"data.batch_size": 8})
    assert (cost.train_batches, cost.val_batches) == (10, 1)


def test_loader_without_a_length_is_named(tmp_path):
    class Stream(toy.Quadrants):
        def train_dataloader(self):
            return DataLoader(Endless(), 8)

    with pytest.raises(ValueError, match="An estimate must know how many batches an epoch has"):
        measure_state(toy.tuner(tmp_path, data=Stream).spec.recipe, {})


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(2), torch.tensor(0)


def test_averaged_weights_are_proposed_where_there_are_three_rates(tmp_path):
    three = toy.graph(rates=(0.1, 0.01, 0.001), sizes=(80,))
    assert "plan.averaging: true" in estimate_cost(toy.tuner(tmp_path, graph=three)).advice
    assert estimate_cost(toy.tuner(tmp_path, graph=three, averaging=True)).advice is None
    assert estimate_cost(toy.tuner(tmp_path, graph=toy.graph(sizes=(80,)))).advice is None


@pytest.mark.slow
def test_estimate_of_a_budget_is_the_budget(tmp_path):
    """And of one under way, what is left of it."""
    made = budgeted.tuner(tmp_path, budget={"epochs": 90, "search_share": 1.0})
    cost = estimate_cost(made)
    assert 85 <= cost.clip_frames / 160 <= 90  # samples of an epoch
    assert cost.hours > 0
    assert cost.advice is None
    made.search()
    assert estimate_cost(made).hours == 0
