import math

import pytest

from lightning_opplan.planning.chains import chain_graph
from lightning_opplan.planning.graph import START, Axis
from lightning_opplan.planning.hand_tuned import hand_tuned_trainings
from lightning_opplan.planning.multigrid import phases
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


SHAPE = {"data.clip_length": 32, "data.crop_size": 112, "data.short_side": [128, 160], "data.batch_size": 8}


def test_multigrid_goes_from_short_and_small_to_whole():
    """The long cycle at the first two of three rates; every update sees about as many pixels, and rates scale."""
    rates = Axis("rate", [{"model.learning_rate": rate} for rate in (0.1, 0.01, 0.001)])
    clip = Axis("clip", [{"model.x": 1}, {"model.x": 2}])
    (training,) = hand_tuned_trainings(
        axes=[clip, rates], epochs=[200], decays=["multigrid"], base=SHAPE, branches={"us": {"sampling": "uniform"}}
    )
    assert training.name == "us 2 multigrid 200"
    assert sum(stage.epochs for _, stage in training.stages) == 300
    shapes = [
        (s["data.clip_length"], s["data.crop_size"], s["data.batch_size"], round(s["model.learning_rate"], 6))
        for s, _ in training.stages
    ]
    assert shapes == [
        (8, 79, 64, 0.8), (16, 79, 32, 0.4), (16, 112, 16, 0.2), (32, 112, 8, 0.1),
        (8, 79, 64, 0.08), (16, 79, 32, 0.04), (16, 112, 16, 0.02), (32, 112, 8, 0.01),
        (32, 112, 8, 0.01), (32, 112, 8, 0.001),
    ]  # fmt: skip
    assert all(s["data.short_cycle"] and s["sampling"] == "uniform" and s["model.x"] == 2 for s, _ in training.stages)
    assert training.stages[0][0]["data.short_side"] == [91, 113]
    assert all(stage.is_constant for _, stage in training.stages)


def test_multigrid_is_as_long_as_in_the_authors_configuration_for_slowfast():
    """What follows from its rule, for rates in equal steps."""
    found = phases(196, 4)
    updates = [phase.epochs / phase.batch for phase in found]
    # The same number of updates for each shape of a round, for every round, and in the end as many as in a round.
    assert updates[:12] == pytest.approx([updates[0]] * 12)
    assert sum(updates[12:]) == pytest.approx(sum(updates[:4]))
    assert sum(phase.epochs for phase in found) == pytest.approx(1.5 * 196)
    assert [phase.level for phase in found] == [0] * 4 + [1] * 4 + [2] * 5 + [3]
    # An ordinary training of as many samples takes 294 epochs' updates.
    assert sum(updates) < 294 / 3


def test_multigrid_has_to_know_the_clips():
    with pytest.raises(ValueError, match="leave 'multigrid' out where the configuration says nothing of"):
        hand_tuned_trainings(axes=[CLIP, RATE], decays=["multigrid"])
    with pytest.raises(ValueError, match="`decays` must be one of 'step', 'cosine'"):
        hand_tuned_trainings(axes=[CLIP, RATE], decays=["linear"])


def test_a_warm_up_rises_to_the_cosine():
    trainings = hand_tuned_trainings(axes=[CLIP, RATE], epochs=[196], decays=["warmup_cosine"])
    assert {training.decay for training in trainings} == {"warmup_cosine"}
    factors = [stage.rate_factor(epoch) for _, stage in trainings[0].stages for epoch in range(stage.epochs)]
    cosine = [0.5 * (1 + math.cos(math.pi * epoch / 196)) for epoch in range(196)]
    assert factors[34:] == pytest.approx(cosine[34:])
    assert factors[0] == pytest.approx(0.1 * cosine[34])
    assert factors[17] == pytest.approx(0.55 * cosine[34])
