import pytest

from lightning_opplan.planning.knee import KneeRule
from lightning_opplan.planning.options import (
    AxisOptions,
    BudgetOptions,
    DeliveryOptions,
    ExecutorOptions,
    GraphOptions,
    SearchOptions,
)

LOW, HIGH, LONG = {"clip": 16, "model.lr": 0.01}, {"clip": 16, "model.lr": 0.1}, {"clip": 32, "model.lr": 0.1}


@pytest.mark.parametrize(
    ("preset", "before", "setting", "risk", "wait"),
    [
        ("paper", None, HIGH, 0.0, 0.0),
        ("paper", HIGH, LOW, 0.0, 0.0),
        ("fast", None, HIGH, 0.0, 50.0),
        ("fast", HIGH, LOW, 0.3, 0.0),
        ("fast", HIGH, LONG, 0.0, 0.0),
    ],
    ids=["paper, start", "paper, rate", "fast, start", "fast, rate", "fast, clips"],
)
def test_fast_stops_by_risk_where_the_rate_alone_changes_and_waits_at_the_start(preset, before, setting, risk, wait):
    rule = SearchOptions(preset=preset).rule_of(before, setting)
    assert (rule.max_risk, rule.wait) == (risk, wait)


def test_what_is_given_goes_before_the_preset():
    options = SearchOptions(preset="fast", knee=KneeRule(max_risk=0.1, wait=7.0))
    assert options.rule_of(None, HIGH) == KneeRule(max_risk=0.1, wait=7.0)
    assert options.rule_of(HIGH, LONG) == KneeRule(max_risk=0.1, wait=0.0)


def test_choices_need_a_budget():
    graph = GraphOptions(axes=[AxisOptions(name="clip", settings=[{"clip": 1}])], choices={"lr": [0.1, 0.2]})
    with pytest.raises(ValueError, match=r"`plan.graph.choices` must be left out without a `plan.budget`, got lr"):
        graph.build()
    assert graph.space().keys == ("clip", "lr")


def test_a_delivery_has_members():
    with pytest.raises(ValueError, match="`delivery.members` must be at least 1"):
        DeliveryOptions(members=0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: KneeRule(patience="5"), "patience"),
        (lambda: SearchOptions(beam=True), "beam"),
        (lambda: BudgetOptions(epochs="600"), "epochs"),
        (lambda: ExecutorOptions(num_workers="2"), "num_workers"),
    ],
    ids=["knee", "search", "budget", "executor"],
)
def test_numbers_must_be_numbers(make, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a number, got"):
        make()
