import numpy as np
import pytest

from lightning_opplan.planning.delivery import (
    Doubling,
    control_members,
    control_settings,
    delivered_members,
    doubling,
    members_from,
)
from lightning_opplan.planning.graph import Axis, TransitionGraph
from lightning_opplan.planning.halving import Halving
from lightning_opplan.planning.path import OptimizationPath, PathStep
from lightning_opplan.planning.schedule import Anneal
from tests.planning.test_halving import arms, by_rate, run

PRICE = {16: 1.0, 32: 2.0}


def price(setting):
    return PRICE[setting["length"]] * (1.5 if setting.get("all") else 1.0)


def path(*steps, value=0.9, rate=0.1):
    return OptimizationPath(
        steps=tuple(
            PathStep(state=f"{length}", epochs=epochs, setting={"length": length, "lr": rate}, value=value)
            for length, epochs in steps
        )
    )


def cost(members):
    return sum(stage.epochs * price(setting) for member in members for setting, stage in member.stages)


def deliver(paths, rest, **options):
    return delivered_members(
        paths, price=price, rest=rest, **{"doubling": Doubling(), "setting": {"all": True}, **options}
    )


def test_as_many_members_as_the_budget_allows_and_all_of_it_is_used():
    members = deliver({"": path((32, 20))}, 200)  # 60 each
    assert [member.name for member in members] == ["path 1", "path 2", "path 3"]
    assert cost(members) <= 200
    assert cost(members) > 200 - 3 * 3


def test_eight_at_most():
    members = deliver({"": path((32, 2))}, 600)
    assert len(members) == 8
    assert {stage.epochs for member in members for _, stage in member.stages} == {25}


def test_every_branch_has_as_many():
    members = deliver({"a": path((32, 10)), "b": path((16, 10))}, 100)  # 30 and 15
    assert [(member.branch, member.value) for member in members] == [("a", 0.9)] * 2 + [("b", 0.9)] * 2


def test_the_worst_branch_is_left_out_if_one_each_is_too_much():
    members = deliver({"a": path((32, 10), value=0.5), "b": path((32, 10), value=0.8)}, 40)
    assert [member.branch for member in members] == ["b", "b"]
    assert cost(members) <= 40


def test_a_small_rest_makes_a_short_training():
    members = deliver({"": path((16, 10), (32, 10))}, 30)  # of 45 for one, and there are to be two
    for member in members:
        assert [stage.epochs for _, stage in member.stages] == [3, 3]
        assert member.stages[-1][1].total == 6
    assert len(members) == 2


def test_only_the_last_state_is_stretched():
    members = deliver({"": path((16, 10), (32, 10))}, 180)  # 45 each
    assert [[stage.epochs for _, stage in member.stages] for member in members] == [[10, 10]] * 4
    longer = deliver({"": path((16, 10), (32, 10))}, 180, doubling=Doubling(gain=0.2, error=0.1))
    assert [[stage.epochs for _, stage in member.stages] for member in longer] == [[10, 25]] * 2


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(-0.1, 8), (0.0, 8), (0.015, 8), (0.025, 4), (0.045, 2), (0.5, 2)],
    ids=["falling", "flat", "within the error", "one doubling", "two", "steep"],
)
def test_fewer_and_longer_members_while_longer_ones_gain_more_than_the_error(gain, expected):
    members = deliver({"": path((32, 10))}, 240, doubling=Doubling(gain=gain, error=0.02))
    assert len(members) == expected
    assert cost(members) == pytest.approx(240)


def test_a_number_of_members_is_taken_as_given():
    members = deliver({"": path((32, 10))}, 1, number=3)
    assert [stage.epochs for member in members for _, stage in member.stages] == [10, 10, 10]


def test_the_rate_falls_at_the_end_unless_the_path_lowers_it():
    (constant,) = deliver({"": path((32, 10))}, 30, number=1)
    assert constant.stages[-1][1].anneal == Anneal(share=0.3, shape="linear")
    falling = OptimizationPath(
        steps=tuple(PathStep(state=str(rate), epochs=5, setting={"length": 32, "lr": rate}) for rate in (0.1, 0.01))
    )
    (stepped,) = deliver({"": falling}, 30, number=1)
    assert all(stage.is_constant for _, stage in stepped.stages)
    (asked,) = deliver({"": falling}, 30, number=1, anneal=Anneal(shape="sqrt"))
    assert asked.stages[-1][1].anneal.shape == "sqrt"


def test_states_without_epochs_are_left_out():
    (member,) = deliver({"": path((16, 10), (32, 0))}, 15, number=1)
    assert [setting["length"] for setting, _ in member.stages] == [16]


def test_members_survive_a_file():
    members = deliver({"a": path((16, 3), (32, 5))}, 60)
    assert members_from([member.to_dict() for member in members]) == members


def test_a_control_has_the_last_setting_of_every_axis_and_the_own_rate():
    axes = [Axis("clip", [{"length": 16}, {"length": 32}]), Axis("rate", [{"lr": 0.1}, {"lr": 0.01}])]
    branches = {"a": {"b": 1}, "c": {"b": 2}}
    graph = TransitionGraph.lattice(axes=axes, branches=branches)
    settings = control_settings(axes, branches, graph)
    assert settings == {"a": {"b": 1, "length": 32}, "c": {"b": 2, "length": 32}}
    members = control_members(settings, price=price, total=600, setting={"all": True})
    assert [member.name for member in members] == ["linear a", "linear c", "cosine a", "cosine c"]
    assert cost(members[:2]) == cost(members[2:]) == 600
    assert members[0].stages[0][1].rate_factor(85) == pytest.approx(0.5)
    assert members[2].stages[0][1].rate_factor(50) == pytest.approx(0.5)


def test_a_control_of_states_written_out_is_their_ends():
    graph = TransitionGraph(
        {"x": {"length": 16, "lr": 0.1}, "y": {"length": 32, "lr": 0.01}}, [("start", "x"), ("x", "y")]
    )
    assert control_settings((), {}, graph) == {"y": {"length": 32}}


def test_a_control_of_choices_alone_is_one_training_as_configured():
    assert control_settings((), {}, None) == {"": {}}


def test_a_path_that_anneals_itself_is_not_annealed_again():
    steps = (
        PathStep(state="a", epochs=9, setting={"length": 32, "lr": 0.1}),
        PathStep(state="b", epochs=3, setting={"length": 32, "lr": 0.1, "anneal": {"epochs": 3}}),
    )
    (member,) = deliver({"": OptimizationPath(steps=steps)}, 36, number=1)
    first, last = (stage for _, stage in member.stages)
    assert first.is_constant
    assert last.rate_factor(3) == 0.0


def test_doubling_is_what_the_second_half_brought_to_all_arms_of_the_last_rung():
    search = Halving(arms(), budget=420, is_delivered=False)
    run(search, by_rate)
    found = doubling(search)
    last = search.rungs[-1]
    gains = [search.value(edge, last.epochs) - search.value(edge, last.epochs / 2) for edge in last.edges]
    assert len(gains) > 1
    assert found.gain == pytest.approx(sum(gains) / len(gains))
    assert found.gain > 0
    assert found.error == pytest.approx(np.std(gains, ddof=1) / np.sqrt(len(gains)))


def test_many_uncertain_arms_show_what_one_does_not():
    """Each gains a point where a validation errs by five; ten of them gain it for certain."""
    noise = np.random.default_rng(0)

    def curve(arm, epochs):
        return 0.5 + 0.01 * (epochs > 8) + 0.004 * noise.standard_normal()

    made = arms(number=10)
    search = Halving(made, budget=160, eta=1000, is_delivered=False)
    run(search, curve, samples=100)
    found = doubling(search)
    best = search.leaders[search.best_so_far]
    assert 0.005 < found.gain < 0.02
    assert found.error < 0.2 * search.standard_error(best)
    members = deliver({"": path((32, 16))}, 1000, doubling=found)
    assert len(members) < len(deliver({"": path((32, 16))}, 1000))


def test_a_search_cut_short_does_not_make_short_members():
    """Three arms leave one after the first rung; what is spared counts as if it had been trained on."""
    made = arms(number=3, own=0.05)
    search = Halving(made, budget=30)
    run(search, by_rate)
    assert search.rungs[-1].reason is not None
    left = search.path()
    spared = search.spared
    assert search.spent + spared == 30
    assert doubling(search).spared == spared
    given = {"": path((32, left.steps[-1].epochs))}
    members = deliver(given, 150, doubling=Doubling(spared=spared))
    assert len(members) == max(2, int(150 / (3 * (left.steps[-1].epochs + spared))))
    assert len(deliver(given, 150)) > len(members)
    whole = Halving(made, budget=30, is_delivered=False)
    run(whole, by_rate)
    assert whole.spared == 0
