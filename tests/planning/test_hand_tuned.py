import math

import pytest

from lightning_opplan.planning.chains import chain_graph
from lightning_opplan.planning.graph import START, Axis
from lightning_opplan.planning.hand_tuned import hand_tuned_trainings
from lightning_opplan.planning.schedule import FixedStage

CLIP = Axis("clip", [{"length": length} for length in (16, 32, 64)], reversible=True)
RATE = Axis("rate", [{"rate": rate} for rate in (0.04, 0.004, 0.0004)])
BRANCHES = {"cs": {"sampling": "consecutive"}, "us": {"sampling": "uniform"}}


def test_the_papers_grid_has_sixty_trainings():
    trainings = hand_tuned_trainings(axes=[CLIP, RATE], branches=BRANCHES)
    assert len({training.name for training in trainings}) == len(trainings) == 60
    assert {training.steps for training in trainings} == {(1, 3), (2, 3), (1, 2, 3)}
    assert sum(training.epochs for training in trainings) == 15_360
    for training in trainings:
        assert sum(stage.epochs for _, stage in training.stages) == training.epochs
        for length in training.steps:  # every length gets as many epochs as the others
            share = sum(s.epochs for setting, s in training.stages if setting["length"] == 16 * 2 ** (length - 1))
            assert share == pytest.approx(training.epochs / len(training.steps), abs=1)


def test_rate_falls_in_three_equal_steps_over_the_whole_training():
    training = next(t for t in hand_tuned_trainings(axes=[CLIP, RATE]) if t.name == "1→3 step 384")
    parts = [(setting["length"], setting["rate"], stage.epochs) for setting, stage in training.stages]
    assert parts == [(16, 0.04, 128), (16, 0.004, 64), (64, 0.004, 64), (64, 0.0004, 128)]


def test_cosine_falls_from_the_first_rate_to_zero():
    training = next(t for t in hand_tuned_trainings(axes=[CLIP, RATE]) if t.name == "1→2→3 cosine 192")
    assert {setting["rate"] for setting, _ in training.stages} == {0.04}
    factors = [stage.rate_factor(epoch) for _, stage in training.stages for epoch in range(stage.epochs)]
    assert factors == pytest.approx([0.5 * (1 + math.cos(math.pi * epoch / 192)) for epoch in range(192)])
    assert training.stages[-1][1].rate_factor(64) == 0.0
    assert FixedStage(epochs=3, offset=1, total=9).rate_factor(2.0) == 1.0


@pytest.mark.parametrize(
    ("num", "expected"), [(1, {(1,)}), (2, {(1, 2), (2,)}), (4, {(1, 4), (2, 4), (1, 2, 3, 4)})], ids=["1", "2", "4"]
)
def test_fewer_and_more_lengths(num, expected):
    axis = Axis("clip", [{"length": number} for number in range(num)])
    assert {t.steps for t in hand_tuned_trainings(axes=[axis, RATE], epochs=[24])} == expected


def test_axes_between_keep_their_last_setting():
    crop = Axis("crop", [{"crop": 112}, {"crop": 224}])
    (training, *_) = hand_tuned_trainings(axes=[CLIP, crop, RATE], epochs=[9])
    assert {setting["crop"] for setting, _ in training.stages} == {224}


def test_graph_is_a_chain_for_each_training():
    trainings = hand_tuned_trainings(axes=[CLIP, RATE], branches=BRANCHES, epochs=[12])
    graph, stages = chain_graph(trainings)
    assert set(stages) == set(graph.states[1:])
    assert all(len(graph.parents(state)) == 1 and len(graph.children(state)) <= 1 for state in graph.states[1:])
    for training in trainings:
        state, epochs = graph.finals[training.name], 0
        while state != START:
            epochs += stages[state].epochs
            (state,) = graph.parents(state)
        assert epochs == 12


def test_impossible_grids_are_named():
    with pytest.raises(ValueError, match="`axes` must hold at least two for a hand-tuned grid"):
        hand_tuned_trainings(axes=[CLIP])
    with pytest.raises(ValueError, match="`epochs` must be at least 6, one for each stage, got 5"):
        hand_tuned_trainings(axes=[CLIP, RATE], epochs=[5])
