from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_opplan.planning.graph import START, Axis
from lightning_opplan.planning.space import Arms, SearchSpace

CLIP = Axis("clip", [{"data.length": 16}, {"data.length": 32}], protect=True)
RATES, DECAYS = [0.3, 0.1, 0.03, 0.01], [0.0, 1e-4, 1e-3, 1e-2]
SPACE = SearchSpace(
    axes=[CLIP],
    branches={"consecutive": {"data.sampling": "c"}, "uniform": {"data.sampling": "u"}},
    choices={"model.lr": RATES, "model.weight_decay": DECAYS},
)


def test_own_setting_of_each_branch_comes_first_at_the_last_position_of_every_axis():
    first, second, *others = SPACE.arms(own={"model.lr": 0.05, "model.weight_decay": 1e-4}).arms
    expected = {"data.length": 32, "model.lr": 0.05, "model.weight_decay": 1e-4}
    assert first.setting == {"data.sampling": "c", **expected}
    assert second.setting == {"data.sampling": "u", **expected}
    assert [first.name, second.name] == [
        "consecutive/clip=2 lr=0.05 weight_decay=0.0001", "uniform/clip=2 lr=0.05 weight_decay=0.0001"
    ]  # fmt: skip
    assert not any(arm.is_own for arm in others)


def test_what_the_configuration_does_not_say_is_left_to_it():
    arms = SPACE.arms(own={}).arms
    assert arms[0].setting == {"data.sampling": "c", "data.length": 32}
    assert arms[0].name == "consecutive/clip=2 lr=own weight_decay=own"


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), rounds=st.integers(1, 4))
def test_every_branch_position_and_rate_comes_equally_often(seed, rounds):
    """With the own arms of a rate that the space lists, in whole rounds."""
    arms = SPACE.arms(own={"model.lr": 0.1, "model.weight_decay": 1e-4}, number=16 * rounds, seed=seed).arms
    cells = Counter((arm.branch, arm.setting["data.length"], arm.setting["model.lr"]) for arm in arms)
    assert len(cells) == 16
    assert set(cells.values()) == {rounds}
    assert len({arm.name for arm in arms}) == len(arms)


def test_few_arms_have_all_rates_and_alternate_in_all_else():
    for seed in range(20):
        _, _, *others = SPACE.arms(own={"model.lr": 0.05}, number=6, seed=seed).arms
        assert sorted(arm.setting["model.lr"] for arm in others) == sorted(RATES)
        assert Counter(arm.branch for arm in others) == {"consecutive": 2, "uniform": 2}
        assert Counter(arm.setting["data.length"] for arm in others) == {16: 2, 32: 2}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), fewer=st.integers(2, 40), more=st.integers(2, 80))
def test_more_arms_begin_with_the_same(seed, fewer, more):
    fewer, more = sorted((fewer, more))
    assert SPACE.arms(number=fewer, seed=seed).arms == SPACE.arms(number=more, seed=seed).arms[:fewer]


def test_a_small_space_is_taken_whole():
    space = SearchSpace(choices={"model.lr": [0.1, 0.01], "model.depth": [1, 2]})
    arms = space.arms(own={"model.lr": 0.1, "model.depth": 2}).arms
    assert sorted(arm.name for arm in arms) == sorted(
        f"lr={rate} depth={depth}" for rate in (0.1, 0.01) for depth in (1, 2)
    )


def test_twelve_arms_where_at_most_two_rates_are_given():
    two = SearchSpace(axes=[CLIP], choices={"model.lr": [0.1, 0.01], "model.weight_decay": DECAYS})
    assert len(two.arms().arms) == 12
    assert len(SPACE.arms().arms) == 18


def test_an_axis_of_rates_has_no_order():
    rate = Axis("rate", [{"model.lr": 0.1}, {"model.lr": 0.001}])
    arms = SearchSpace(axes=[CLIP, rate]).arms(own={"model.lr": 0.1}).arms
    assert arms[0].setting == {"data.length": 32, "model.lr": 0.1}
    assert {arm.is_last for arm in arms if arm.setting["data.length"] == 32} == {True}


def test_names_do_not_collide():
    values = [1, "1", None, "None", [1, 2], {"a": 1}, "b#2", "a b", 1.5]
    arms = SearchSpace(choices={"d": values, "lr": [0.1, None, "auto"]}).arms(number=28, moves=1).arms
    assert len({arm.name for arm in arms}) == len(arms) == 28  # one as configured beside them
    assert not any("#" in arm.name for arm in arms)


def test_trainings_without_an_end_do_not_anneal():
    axis = Axis("rate", [{"lr": 0.1, "anneal": None}, {"lr": 0.1, "anneal": {"share": 0.3}}])
    with pytest.raises(ValueError, match="`anneal` must be left out of a search with a `budget`"):
        SearchSpace(axes=[axis])


def test_forks_are_one_step_away_and_their_rate_is_lower():
    made = SPACE.arms(own={"model.lr": 0.1, "model.weight_decay": 1e-4}, number=4, moves=1)
    by_name = {arm.name: arm for arm in made.arms}
    assert made.forks
    for parent, fork in made.forks:
        before, after = by_name[parent].setting, fork.setting
        changed = [key for key in after if after[key] != before[key]]
        assert len(changed) == 1
        assert fork.branch == by_name[parent].branch
        if changed == ["model.lr"]:
            assert RATES.index(after["model.lr"]) == RATES.index(before["model.lr"]) + 1
        assert fork.name not in by_name
    edges = made.graph.edges
    assert [edge.child for edge in edges if edge.parent == START] == list(by_name)


def test_arms_survive_a_journal():
    made = SPACE.arms(own={"model.lr": 0.1}, moves=1)
    again = Arms.from_dict(made.to_dict(), made.graph.settings)
    assert again.to_dict() == made.to_dict()
    assert again.graph.edges == made.graph.edges


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "must have `axes`, `branches` or `choices`"),
        ({"choices": {"model.lr": 0.1}}, "`choices` of 'model.lr' must be a list of values, got 0.1"),
        ({"choices": {"model.lr": []}}, "must be a list of values"),
        ({"axes": [CLIP], "choices": {"data.length": [16]}}, "`data.length` must be set by one axis"),
    ],
    ids=["empty", "no list", "no values", "twice"],
)
def test_a_space_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(**arguments)


def test_a_space_of_one_setting_is_refused():
    with pytest.raises(ValueError, match="at least two settings"):
        SearchSpace(choices={"model.lr": [0.1]}).arms(own={"model.lr": 0.1})
